"""harness compares methods for language models fairly. The public surface, imported on demand."""

from importlib import import_module
from typing import Any

from harness.notices import drop_notices

_PUBLIC = {
    **dict.fromkeys(
        (
            "Method",
            "Choice",
            "CellView",
            "Problem",
            "LossTerm",
            "model_ref",
            "check_counts",
            "check_distinct",
            "check_limits",
            "signed",
        ),
        "harness.method",
    ),
    **dict.fromkeys(("path_ref", "files_at", "listed", "named"), "harness.paths"),
    **dict.fromkeys(("hookimpl", "hookspec"), "harness.hookspecs"),
    **dict.fromkeys(("Stage", "Work", "Choices"), "harness.stage"),
    "Cell": "harness.compose",
    "Purpose": "harness.rng",
    **dict.fromkeys(("Delta", "Loaded", "open_dense", "open_model", "save_model"), "harness.model.artifact"),
    **dict.fromkeys(("prove", "snapshot"), "harness.model.snapshot"),
    **dict.fromkeys(("sparsity", "weights_by_layer"), "harness.model.sparsity"),
    **dict.fromkeys(
        ("CalibrationConfig", "calibrate", "calibration_problems", "training_tokens"),
        "harness.model.calibration",
    ),
    **dict.fromkeys(("TrainingConfig", "run_training"), "harness.stages._training"),
    **dict.fromkeys(
        (
            "HarnessError",
            "ConfigError",
            "PluginError",
            "IncompatibleError",
            "EffectError",
            "DataError",
            "TaskError",
            "DivergedError",
            "MissingExtraError",
        ),
        "harness.errors",
    ),
    "ModelSpec": "harness.spec",
    **dict.fromkeys(("Corpus", "Damage", "Document", "Split"), "harness.axes.corpus"),
    **dict.fromkeys(("Filter", "FilterReport"), "harness.axes.filter"),
    **dict.fromkeys(("Tokenizer", "SPECIAL_TOKENS"), "harness.axes.tokenizer"),
    "Mixture": "harness.axes.mixture",
    **dict.fromkeys(("Curriculum", "SampleReader"), "harness.axes.curriculum"),
    "Architecture": "harness.axes.architecture",
    **dict.fromkeys(("Attention", "Index", "Kernel", "CacheKind", "View"), "harness.axes.attention"),
    "Position": "harness.axes.position",
    "StateCache": "harness.ops.state_cache",
    "rms_norm": "harness.ops.norms",
    "PagedCache": "harness.ops.paged_cache",
    "known": "harness.ops.view",
    **dict.fromkeys(
        ("inverse_frequencies", "cos_sin", "rotate_pairs", "rotation_factors", "check_rotation_factors"),
        "harness.ops.rotary",
    ),
    **dict.fromkeys(("parallel_linear", "chunked_linear", "kept_by_chunks"), "harness.ops.linear"),
    "Norm": "harness.axes.norm",
    "NormPosition": "harness.axes.norm_position",
    "FeedForward": "harness.axes.feed_forward",
    **dict.fromkeys(("Objective", "Example"), "harness.axes.objective"),
    **dict.fromkeys(("Context", "Heads", "Placement", "Reach", "Rotary"), "harness.axes.context"),
    "clip_gradients": "harness.ops.gradients",
    "StoredWeights": "harness.ops.stored_weights",
    "LossScaler": "harness.ops.loss_scaler",
    **dict.fromkeys(("rescale_dynamically", "set_length", "trained_length"), "harness.ops.extension"),
    **dict.fromkeys(
        ("Instruction", "Conversation", "Turn", "Role", "Prompt", "as_text", "as_turns"),
        "harness.axes.instruction",
    ),
    **dict.fromkeys(("OnError", "count_unreadable"), "harness.data.damage"),
    **dict.fromkeys(
        (
            "LINES",
            "ROWS",
            "TABLES",
            "numbered_rows",
            "packed",
            "plain_bytes",
            "read_lines",
            "read_rows",
            "read_text",
            "stem",
        ),
        "harness.data.reading",
    ),
    **dict.fromkeys(
        ("NoTextError", "messages_in", "plain_call", "plain_text", "spoken_turns", "turns_of"),
        "harness.data.messages",
    ),
    **dict.fromkeys(("answer_surprise", "text_surprise"), "harness.data.surprise"),
    **dict.fromkeys(("rouge_l", "mtld"), "harness.data.similarity"),
    **dict.fromkeys(("encode_plain", "hidden_bytes"), "harness.data.tokenization"),
    **dict.fromkeys(("Item", "skill_families", "skill_items"), "harness.data.skills"),
    **dict.fromkeys(("check", "violated", "share_met"), "harness.data.checks"),
    "InstructionStrategy": "harness.axes.instruction_strategy",
    **dict.fromkeys(
        ("Peft", "Kept", "OnPacked", "adapter_before", "match_modules", "tuned_by"), "harness.axes.peft"
    ),
    **dict.fromkeys(("Reward", "Preference", "AnswerScorer"), "harness.axes.reward"),
    "Feedback": "harness.axes.feedback",
    **dict.fromkeys(("Alignment", "LogProbs", "Needs", "Rollouts", "log_ratios"), "harness.axes.alignment"),
    **dict.fromkeys(
        (
            "PackedLinear",
            "linear_layers",
            "packed_shapes",
            "replace_module",
            "weight_matrix",
        ),
        "harness.ops.packed_linear",
    ),
    **dict.fromkeys(("unfuse_experts", "unknown_layout"), "harness.ops.experts"),
    **dict.fromkeys(("PackedLayout", "Quantizer", "packed_before"), "harness.axes.quantizer"),
    **dict.fromkeys(
        ("Calibration", "block_names", "calibration_inputs", "change_weights", "unreached", "walk"),
        "harness.ops.calibration",
    ),
    **dict.fromkeys(
        ("Hessian", "SquaredNorms", "compensate", "inverse_factor", "output_error"), "harness.ops.moments"
    ),
    "Pruner": "harness.axes.pruner",
    "Rotation": "harness.axes.rotation",
    "hadamard": "harness.ops.rotation",
    **dict.fromkeys(("pack_codes", "unpack_codes", "unpack_levels", "packed_width"), "harness.ops.packing"),
    **dict.fromkeys(("Optimizer", "trained_parameters"), "harness.axes.optimizer"),
    "Schedule": "harness.axes.schedule",
    "BatchSchedule": "harness.axes.batch_schedule",
    **dict.fromkeys(("Stabilizer", "Verdict"), "harness.axes.stabilizer"),
    "Precision": "harness.axes.precision",
    **dict.fromkeys(("Parallelism", "Spread"), "harness.axes.parallelism"),
    **dict.fromkeys(("Decoding", "check_vocabulary", "not_all_kept"), "harness.axes.decoding"),
    **dict.fromkeys(("Rule", "quantile", "rule_of", "special_ids", "uniforms"), "harness.ops.drawing"),
    **dict.fromkeys(("last_logits", "new_cache", "next_logits"), "harness.ops.decode"),
    "GrowingCache": "harness.ops.growing_cache",
    **dict.fromkeys(
        ("Evaluator", "Evaluation", "Metric", "Subject", "check_split"), "harness.axes.evaluator"
    ),
    **dict.fromkeys(
        ("ItemTexts", "file_texts", "held_out_documents", "item_files"), "harness.data.item_texts"
    ),
    **dict.fromkeys(("UNSPACED", "Overlap", "ngram_hashes", "words"), "harness.data.overlap"),
    "task_items": "harness.evaluation.task_items",
    "LikelihoodScorer": "harness.evaluation.scoring",
    **dict.fromkeys(("ScoreRequest", "rolling"), "harness.evaluation.requests"),
    **dict.fromkeys(
        (
            "count_items",
            "find_task",
            "hub_data",
            "is_cached",
            "item_rows",
            "load_task",
            "own_metrics",
            "own_origin",
            "own_tasks",
            "stated_tasks",
            "task_files",
            "without_data",
        ),
        "harness.evaluation.lm_tasks",
    ),
    **dict.fromkeys(("answer_tokens", "one_length", "refused_options"), "harness.evaluation.lm_options"),
    **dict.fromkeys(("Source", "drawing_from"), "harness.evaluation.items"),
    **dict.fromkeys(
        ("PeakTracker", "flops_per_token", "matmul_weights", "peak_flops"), "harness.training.measure"
    ),
    **dict.fromkeys(
        ("PROMPT_FILES", "item_hashes", "misread", "read_answers", "read_items", "same_prompt"),
        "harness.evaluation.prompts",
    ),
    "ratio_metric": "harness.evaluation.ratios",
    **dict.fromkeys(("Endpoint", "EndpointError", "missing_key"), "harness.evaluation.endpoint"),
    "has_head": "harness.model.scorer",
    "prompted": "harness.model.conditioning",
    "length_controlled": "harness.evaluation.length_control",
    "hardware": "harness.evaluation.hardware",
    "Controls": "harness.evaluation.controls",
    **dict.fromkeys(("quiet", "run_tasks", "seeded"), "harness.evaluation.lm_run"),
    **dict.fromkeys(("Answers", "answer", "answer_request", "greedy_tokens"), "harness.evaluation.answers"),
    **dict.fromkeys(("Judge", "Duel"), "harness.axes.judge"),
    "choose": "harness.compose.typed",
    "Writer": "harness.evaluation.writer",
    "Tracker": "harness.axes.tracker",
    **dict.fromkeys(("compose", "plan"), "harness.api.planning"),
    **dict.fromkeys(("run", "sweep"), "harness.api.running"),
    **dict.fromkeys(("records", "report"), "harness.api.reporting"),
    **dict.fromkeys(("load_model", "load_samples", "LoadedModel"), "harness.api.loading"),
}
"""Public name -> module; a plugin imports these from `harness` and nothing else of it."""

_PACKAGES = frozenset(("compose", "plan", "report", "run"))
"""Public functions whose name a subpackage has; it is called in their place (harness.callable)."""

__all__ = sorted(_PUBLIC)


drop_notices()


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    if name in _PACKAGES:
        return import_module(f"harness.{name}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
