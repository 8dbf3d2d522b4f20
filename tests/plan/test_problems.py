"""What the plan refuses before anything runs."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny

from harness.axes.objective import Example
from harness.axes.stabilizer import Stabilizer
from harness.compose import compose
from harness.errors import HarnessError
from harness.method import Choice
from harness.model import reach
from harness.plan.make import make_plan
from harness.plan.problems import _writers, problems
from harness.registry.known import registry
from harness.store import Store


def messages(*overrides: str) -> list[str]:
    return [str(problem) for problem in problems(compose(overrides))]


def test_the_default_cell_has_no_problem() -> None:
    assert messages() == []


def test_rope_scaling_on_alibi_is_refused_with_the_way_out() -> None:
    (problem,) = messages("context=yarn", "position=alibi")
    assert "context=yarn requires 'rotary', which position=alibi does not provide" in problem
    assert "position=rope" in problem


def test_an_impossible_shape_is_found_on_the_meta_device() -> None:
    (problem,) = messages("attention=grouped_query", "attention.num_kv_heads=3")
    assert "attention.num_kv_heads=3 must divide model.num_heads=4; use one of [1, 2, 4]" in problem


def test_head_and_embeddings_are_adapted_where_they_share_no_weight() -> None:
    (problem,) = messages("instruction=task", "peft=lora", "peft.target_modules=[lm_head]")
    assert "lm_head shares its weight between input embeddings and output head" in problem
    apart = ("peft.target_modules=[lm_head,embed_tokens]", "model.tie_embeddings=false")
    assert not messages("instruction=task", "peft=lora", *apart)
    (problem,) = messages("instruction=task", "peft=lora", "peft.target_modules=[q_proj,gate]")
    assert "gate matches no module; the model has" in problem


ENCODER = "architecture=encoder_decoder model.num_encoder_layers=1"
BAD_MODELS = {
    f"{ENCODER} quantizer=gptq quantize.calibration_sequences=8": "8 x 64 = 512 calibration tokens, and",
    "pretrain.sequence_length=512": "pretrain.sequence_length: 512 exceeds model.max_length=256",
    "position=learned instruct.sequence_length=512": "512 tokens, but position=learned holds 256",
    "position=learned alignment=dpo align.sequence_length=512": "align.sequence_length: sequences of 512",
    "position=learned alignment=ppo reward=rules align.sequence_length=256": "sequences of 288 tokens",
    "position=learned reward=pairwise alignment=ppo reward_stage.sequence_length=300": "sequences of 300",
    "position=learned context=direct_finetune": "context.factor: sequences of 512 tokens",
    "model.head_dim=15": "model.head_dim=15 times position.fraction=1.0 is 15; make it even",
    "position=rope position.fraction=0.3": "times position.fraction=0.3 is 9; make it even",
    "position=xpos model.head_dim=15": "position=xpos rotates pairs, but model.head_dim=15 is odd",
    "attention=multi_head_latent attention.rope_dim=5": "is 5; make it even",
    "attention=sliding_window attention.num_kv_heads=3": "use one of [1, 2, 4]",
    "position=alibi context=position_interpolation": "which position=alibi does not provide",
    "position=alibi attention=linear": "attention=linear has no scores that position=alibi could add to",
    "attention=sparse_factorized attention.summary=3": "changes nothing with attention.pattern=strided",
    "model.attention_cap=30 attention=linear": "attention=linear has no scores that it would change",
    "model.norm_bias=true": "norm=rmsnorm has nothing that it would change; leave model.norm_bias out",
    "model.norm_offset=true norm=layernorm": "norm=layernorm has nothing that it would change",
    "model.attention_cap=30 attention=flash": "the flash kernel cannot bound scores, as model.attention_cap",
    "attention=linear attention.kernel=math": "attention=linear has no softmax that a kernel would compute",
    "attention=mamba2 attention.cache=paged": "attention=mamba2 keeps a state, and no keys that blocks",
    "attention.kernel=flash model.layer_pattern=[{position:{method:relative_t5}},{}]": "no learned score",
    "architecture=encoder_decoder": "set model.num_encoder_layers to at least 1",
    "model.num_encoder_layers=2": "architecture=causal_decoder has no encoder; set it to 0",
    "architecture=prefix_decoder instruction_strategy=packing": "prefix_decoder reads one prompt",
}


@pytest.mark.parametrize(("overrides", "message"), BAD_MODELS.items(), ids=BAD_MODELS)
def test_a_model_that_cannot_work_is_refused_before_anything_runs(overrides: str, message: str) -> None:
    assert any(message in text for text in messages(*overrides.split()))


@pytest.mark.parametrize(
    ("chosen", "option"), [("attention=flash", "kernel: flash"), ("attention=paged", "cache: paged")]
)
def test_what_a_method_that_chooses_scores_puts_aside_is_footnoted(chosen: str, option: str) -> None:
    """The kernel trains the model, and the scores are another's from `extend` on."""
    found = problems(compose([chosen, "context=streaming", "model.max_length=256"]))
    assert [problem.fatal for problem in found] == [False]
    assert f"attention.{option} holds until context=streaming is applied" in str(found[0])
    assert not messages(chosen, "context=yarn")


def test_positions_of_its_own_are_what_a_layer_is_judged_by() -> None:
    """The model's scheme adds to scores, which no layer that has none has."""
    pattern = "model.layer_pattern=[{position:{method:nope}},{attention:{method:full}}]"
    assert messages("attention=linear", "position=alibi", pattern) == []


def test_a_prefix_longer_than_the_sequence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective of a plugin with a prefix of its own length, under windows that are too short for it."""

    def example(self: Any, window_T: np.ndarray, rng: np.random.Generator, **_: Any) -> Example:
        return Example(inputs_T=window_T[:-1], labels_T=window_T[1:], prefix_length=100)

    method = registry().get("objective", "prefix_language_modeling")
    monkeypatch.setattr(method, "example", example)
    chosen = ("objective=prefix_language_modeling", "architecture=prefix_decoder")
    assert messages(*chosen) == []
    (problem,) = messages(*chosen, "pretrain.sequence_length=64")
    assert "a prefix of 100 tokens does not fit a sequence of 64" in problem


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"model_type": "lama"}', "a checkpoint of the family 'lama', which transformers does not know"),
        ('{"hidden_size": 8}', "its config.json states no model_type"),
    ],
)
def test_a_checkpoint_of_an_unknown_family_is_refused(tmp_path: Path, config: str, message: str) -> None:
    (tmp_path / "config.json").write_text(config)
    chosen = ("model=pretrained", f"model.path={tmp_path}", "stages=[corpus,instruct,evaluate]")
    (problem,) = messages(*chosen)
    assert message in problem
    if "lama" in config:
        assert "Did you mean 'llama'" in problem
    with pytest.raises(HarnessError, match=r"checkpoint family to import|model_type"):
        make_plan([*chosen, "model.import=true"], store=Store(tmp_path / "store"))


BAD_FITS = {
    "quantizer=rtn quantizer.granularity=group quantizer.group_size=48": "group_size=48 must divide its",
    "quantizer=gguf": "",
    "peft=lora peft.rank=33": "rank 33 is above the size of layer model.layers.0.self_attn.q_proj, 32 x 32",
    "peft=lora peft.target_modules=[nothing]": "matches no module; the model has",
    "peft=adalora peft.target_modules=[embed_tokens]": "is no layer that can be adapted; those are down_proj",
}


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize(("overrides", "message"), BAD_FITS.items(), ids=BAD_FITS)
def test_what_does_not_fit_a_checkpoint_is_refused_from_its_config(
    overrides: str, message: str, imported: bool, tmp_path: Path
) -> None:
    tiny.llama().config.save_pretrained(tmp_path)  # no weights: the plan reads none
    chosen = ("model=pretrained", f"model.path={tmp_path}", f"model.import={str(imported).lower()}")
    found = messages(*chosen, "stages=[corpus,instruct,quantize,evaluate]", *overrides.split())
    assert all(message in problem for problem in found)
    assert bool(found) == bool(message)
    assert not any("lm_head" in problem for problem in found if problem.startswith("quantizer"))


def test_a_checkpoint_that_is_no_causal_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    (problem,) = messages("model=pretrained", f"model.path={tmp_path}", "stages=[corpus,instruct,evaluate]")
    assert "cannot be read as a causal model" in problem


def test_a_pretrained_model_leaves_nothing_to_pretrain(tmp_path: Path) -> None:
    (problem,) = messages(
        "model=pretrained", f"model.path={tmp_path}", "stages=[corpus,tokenizer,tokens,pretrain]"
    )
    assert "pretrain: it builds a model, and model=pretrained brings one" in problem


def test_a_choice_that_no_stage_reads_is_refused() -> None:
    (problem,) = messages("quantizer=rtn", "stages=[corpus,tokenizer,tokens,pretrain,evaluate]")
    assert "quantizer=rtn changes nothing: no stage reads it; add one of ['quantize']" in problem


def test_two_writers_of_one_resource_are_refused_unless_one_comes_after() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Options(Stabilizer.Config):
        pass

    def writer(word: str, **declared: Any) -> Choice:
        kind = type(word, (Stabilizer,), {"name": word, "changes": frozenset({"scores"}), **declared})
        return Choice(axis="stabilizer", method=kind, config=Options())

    first, second = writer("first"), writer("second")
    (problem,) = _writers([first, second])
    assert "stabilizer=first and stabilizer=second both change 'scores'" in problem.message
    assert not list(_writers([first, writer("polite", after=frozenset({"scores"}))]))


def test_a_methods_own_check_is_asked() -> None:
    assert any("tokenizer.vocab_size" in text for text in messages("tokenizer.vocab_size=3"))


SHARED = ("parallelism=ddp", "parallelism.num_processes=2")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("batch_schedule=ramp", "pretrain.batch_size=4"),
            "batch of 1 (parallelism=ddp, batch_schedule=ramp)",
        ),
        (("batch_schedule=ramp", "pretrain.batch_size=4"), "use batch_schedule.multiple=2"),
        (
            ("pretrain.batch_size=3",),
            "batch of 3 (parallelism=ddp, batch_schedule=constant); use a multiple of 2",
        ),
    ],
)
def test_batches_that_processes_cannot_share_are_refused(overrides: tuple[str, ...], said: str) -> None:
    assert any(
        text.startswith("pretrain.batch_size: ") and said in text for text in messages(*SHARED, *overrides)
    )


def test_batches_that_processes_share_evenly_at_all_times_are_planned() -> None:
    assert messages(*SHARED, "batch_schedule=ramp", "batch_schedule.multiple=2") == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"model_type": 3}', '{"model_type": "llama", "architectures": 3}']
)
def test_a_checkpoint_whose_config_is_damaged_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    (problem, *_) = messages("model=pretrained", f"model.path={tmp_path}")
    assert f"{tmp_path}/config.json" in problem


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """As if a library were not installed."""

    def find(name: str) -> Any:
        return None if name == module else find_spec(name)

    monkeypatch.setattr("harness.plan.problems.find_spec", find)
    monkeypatch.setattr("harness_plugins.evaluator.fertility.find_spec", find)


@pytest.mark.parametrize(
    ("overrides", "module", "extra"),
    [
        (["tokenizer=sentencepiece_bpe"], "sentencepiece", "data"),
        (["filter=[c4]"], "datatrove", "data"),
        (["filter=[language]"], "py3langid", "data"),
        (["evaluator=[fertility]"], "spacy", "data"),
        (["optimizer=adam8bit"], "bitsandbytes", "bitsandbytes"),
        (["tracker=[tensorboard]"], "tensorboard", "tensorboard"),
    ],
)
def test_a_library_that_is_absent_is_named_with_its_extra_before_anything_runs(
    overrides: list[str], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, module)
    (found,) = problems(compose([*overrides, "scale=smoke"]))
    assert f"needs the package '{module}', which is not installed" in found.message
    assert f"pip install 'harness-lm[{extra}]'" in found.message


def test_what_needs_no_such_library_is_not_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without(monkeypatch, "spacy")
    (tmp_path / "en.txt").write_text("Some words.\n")
    own = [
        "evaluator=[fertility]",
        f"evaluator.fertility.path={tmp_path}",
        "evaluator.fertility.languages=[en]",
    ]
    assert problems(compose([*own, "scale=smoke"])) == []
    assert problems(compose(["quantizer=nf4", "scale=smoke"])) == []


def test_every_method_with_an_extra_says_what_it_needs_of_it() -> None:
    """`extra` alone refuses nothing: a library that it names at most by an import fails in the run."""
    known = registry()
    bare = {
        f"{axis}={method.name}"
        for axis in known.axes
        for method in known.methods(axis).values()
        if method.extra and not (method.libraries or getattr(method, "library", None))
    }
    assert bare == {"evaluator=fertility"}, "whose own check asks for spaCy where it has no texts"


@pytest.mark.parametrize("stage", ["instruct", "instruct@chat"])
def test_virtual_tokens_before_packed_sequences_are_refused_in_whatever_stage_learns_them(stage: str) -> None:
    order = f"stages=[corpus,tokenizer,tokens,pretrain,{stage},evaluate]"
    found = [
        p.message for p in problems(compose([order, "peft=prompt_tuning", "instruction_strategy=packing"]))
    ]
    assert any("instruction_strategy=packing packs several conversations into one" in text for text in found)
    without = [order, "peft=prompt_tuning", "instruction_strategy=proportional"]
    assert not [p for p in problems(compose(without)) if "virtual tokens stand" in p.message]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("attention=multi_head_latent", "and attention=multi_head_latent reads none; use peft=prompt_tuning"),
        ("model.layer_pattern=[{attention:{method:mamba2}},{}]", "and attention=mamba2 reads none"),
        ("model.layer_pattern=[{attention:{method:multi_query}},{}]", "have different numbers of key/value"),
        ("architecture=prefix_decoder", "virtual tokens stand where architecture=prefix_decoder"),
        ("attention=linear", ""),
    ],
)
def test_a_prefix_is_refused_by_layers_that_cannot_read_it(chosen: str, message: str) -> None:
    stages = "stages=[corpus,tokenizer,tokens,pretrain,instruct,evaluate]"
    found = [p for p in messages(stages, "peft=prefix_tuning", chosen) if "peft=prefix_tuning" in p]
    assert all(message in problem for problem in found)
    assert bool(found) == bool(message)


def test_a_window_is_extended_by_whatever_stage_reads_the_axis() -> None:
    cell = SimpleNamespace(
        stages=("pretrain", "stretch@twice"),
        spec=lambda: SimpleNamespace(max_length=128),
        reads=lambda stage: ("context",) if stage == "stretch@twice" else (),
        choice=lambda axis, stage: compose(["context=yarn", "context.factor=4"]).choice(axis),
    )
    assert reach.reads(cell, None) == 512
