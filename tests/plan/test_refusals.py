"""What cannot work is refused by the plan, with a reason that says what to do: user's command lines."""

import gzip
import json
import re
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.plan.make import make_plan
from harness.store import Store
from tests.support import tiny_models as tiny

OWN = ("scale=smoke",)
TUNE = ("stages=[corpus,instruct]",)
PACK = ("stages=[corpus,quantize]",)
PIPELINE = ("parallelism=pipeline", "parallelism.num_processes=2", "model.tie_embeddings=false")

PACKING = [
    ("quantizer=torchao quantizer.group_size=48", "must divide its .* inputs; use null"),
    (
        "quantizer=rtn quantizer.granularity=group quantizer.group_size=48",
        "must divide its .* inputs; use one of",
    ),
    ("quantizer=rtn quantizer.group_size=48", "set quantizer.granularity=group, or drop it"),
    ("quantizer=gptq quantize.calibration_length=2", r"tokens, and quantizer=gptq needs \d+ for layer"),
    (
        "quantizer=gptq quantize.calibration_length=9000000",
        "which no tokenizer makes of at most 800000 bytes",
    ),
    ("quantizer=qat quantizer.data=tokens quantize.sequence_length=9000000", "which no tokenizer makes of"),
]
"""Options of `quantizer` that fit no model of these sizes, and what the plan says of them."""
TUNING = [
    ("peft=lora peft.rank=1000", r"rank 1000 is above the size of layer .*; use at most \d+"),
    ("peft=lora peft.target_modules=[nope]", "matches no module; the model has .*down_proj"),
    (
        "peft=ia3 peft.target_modules=[nope] peft.feedforward_modules=[]",
        "matches no module; the model has .*down_proj",
    ),
]


MODELS = [
    ("instruction=none alignment=kto", "instruction=none leaves align without prompts.*feedback=preferences"),
    ("instruction=none alignment=grpo", "leaves align without prompts; choose e.g. instruction=task$"),
    ("instruction=none alignment=ppo reward=pairwise", "leaves reward without prompts"),
    ("attention=grouped_query attention.num_kv_heads=3", r"must divide model.num_heads=4; use one of"),
    ("model.head_dim=15", "rotates pairs, .*; make it even"),
    ("position=learned pretrain.sequence_length=999", "exceeds model.max_length=256"),
    ("position=learned quantizer=gptq quantize.calibration_length=300", "holds 256 positions; keep to"),
    ("position=alibi context=yarn", "use position=rope or .*position=xpos"),
    ("quantizer=auto_gptq", "quantize a checkpoint with model=pretrained"),
    (f"{' '.join(PIPELINE)} position=learned", "of a pipeline do not share; use position=rope"),
    (f"{' '.join(PIPELINE)} position=relative_t5", "of a pipeline do not share; use position=rope"),
    (
        f"{' '.join(PIPELINE)} architecture=encoder_decoder model.num_encoder_layers=1",
        "a pipeline splits decoders",
    ),
    (
        f"{' '.join(PIPELINE)} feed_forward=moe_switch",
        "which the last process of a pipeline computes from its",
    ),
    (f"{' '.join(PIPELINE)} peft=prefix_tuning", "no place for the virtual tokens that instruct trains; use"),
    *(
        (f"parallelism={name} model.tie_embeddings=false", "1 process has nobody to share with")
        for name in ("ddp", "fsdp", "zero1", "zero2", "tensor", "pipeline", "mesh")
    ),
    (
        "parallelism=tensor parallelism.num_processes=2 precision=fp8",
        "precision=fp8 scales each operand by its largest entry, which the processes of parallelism=tensor "
        "do not see; use precision=bf16, or parallelism@pretrain.parallelism=fsdp",
    ),
    (
        "parallelism=tensor parallelism.num_processes=2 instruction=task peft=lora",
        "peft=lora stands on layers that parallelism=tensor splits by heads and hidden units; use "
        "parallelism@instruct.parallelism=ddp",
    ),
    (f"{' '.join(PIPELINE)} alignment=dpo", "align compares several; use parallelism@align.parallelism=ddp"),
    (
        f"{' '.join(PIPELINE)} architecture=prefix_decoder objective=prefix_language_modeling",
        "and instruct reads them as prefixes; use",
    ),
    ("parallelism=tensor parallelism.num_processes=2 position=alibi", "do not follow split heads; use"),
    (
        "parallelism=tensor parallelism.num_processes=2 attention=multi_query",
        "must be multiples of the 2 processes that split them, and 1 is not",
    ),
    (
        "parallelism=ddp parallelism.num_processes=2 pretrain.compile=true",
        "compile: true trains in one process",
    ),
    (
        "stabilizer=[spike_rollback] pretrain.checkpoint_every=null",
        "spike_rollback returns to checkpoints; set",
    ),
    ("stages=[corpus,tokenizer,tokens,pretrain,quantize,instruct] quantizer=rtn peft=full", "use peft=lora"),
]
"""Shapes and pairs of methods that do not fit each other."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.pretrained(tmp_path_factory.mktemp("llama")))


def reason(store: Store, *arguments: str) -> str:
    """Why the plan refuses the one cell of a command line."""
    (cell,) = make_plan([*OWN, *arguments], store=store).cells
    return cell.refused


@pytest.mark.parametrize(("line", "said"), [*PACKING, *TUNING, *MODELS])
def test_own_models_are_refused(store: Store, line: str, said: str) -> None:
    assert re.search(said, reason(store, *line.split()))


@pytest.mark.parametrize(("line", "said"), [*PACKING, *TUNING])
def test_checkpoints_are_refused(store: Store, checkpoint: str, line: str, said: str) -> None:
    stages = TUNE if line.startswith("peft") else PACK
    given = ("model=pretrained", f"model.path={checkpoint}", *stages)
    assert re.search(said, reason(store, *given, *line.split()))


def test_calibration_without_any_text_is_refused(store: Store, checkpoint: str) -> None:
    given = ("model=pretrained", f"model.path={checkpoint}", "stages=[quantize]")
    assert "put corpus before it" in reason(store, *given, "quantizer=gptq")
    assert reason(store, *given, "quantizer=rtn") == ""


def test_a_file_too_short_to_calibrate_on_is_refused(store: Store, checkpoint: str, tmp_path: Path) -> None:
    book, packed = tmp_path / "book.txt", tmp_path / "book.txt.gz"
    book.write_text("Too short.")
    packed.write_bytes(gzip.compress(book.read_bytes()))
    given = ("model=pretrained", f"model.path={checkpoint}", *PACK, "quantizer=gptq", "corpus=text")
    assert "which no tokenizer makes of at most 10 bytes" in reason(store, *given, f"corpus.path={book}")
    assert reason(store, *given, f"corpus.path={packed}") == ""  # only reading it tells


@pytest.mark.slow
def test_sequences_beyond_a_checkpoints_table_are_refused(store: Store, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

    sizes = {"vocab_size": tiny.VOCABULARY}
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, n_embd=32, n_layer=1, n_head=2, n_positions=64))
    opt = OPTForCausalLM(
        OPTConfig(
            **sizes,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            word_embed_proj_dim=32,
        )
    )
    for name, model in (("gpt2", gpt2), ("opt", opt)):
        tiny.byte_tokenizer(tmp_path / name)
        model.save_pretrained(tmp_path / name)
        given = ("model=pretrained", f"model.path={tmp_path / name}", *PACK, "quantizer=gptq")
        assert "a table of 64 positions" in reason(store, *given, "quantize.calibration_length=65")
        assert reason(store, *given, "quantize.calibration_length=64") == ""


def test_a_checkpoint_of_an_unknown_family_is_named(store: Store, checkpoint: str, tmp_path: Path) -> None:
    config = (
        (Path(checkpoint) / "config.json")
        .read_text()
        .replace('"model_type": "llama"', '"model_type": "lama"')
    )
    (tmp_path / "config.json").write_text(config)
    said = reason(store, "model=pretrained", f"model.path={tmp_path}", *PACK, "quantizer=rtn")
    assert "family 'lama', which transformers does not know. Did you mean 'llama'?" in said


@pytest.mark.parametrize(
    ("chosen", "idle"),
    [
        (("instruction=chat", "instruction.path={file}"), "instruction.num_conversations=5"),
        (
            ("instruction=alpaca", "instruction.path={file}", "instruction.test_path={file}"),
            "instruction.test_share=0.3",
        ),
        (
            ("corpus=jsonl", "corpus.path={file}", "corpus.validation_path={file}"),
            "corpus.validation_share=0.2",
        ),
        (("corpus=jsonl", "corpus.path={file}", "corpus.split_field=part"), "corpus.test_share=0.2"),
        (("corpus=text", "corpus.path={file}", "corpus.test_path={file}"), "corpus.test_share=0.2"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_an_option_that_another_leaves_without_effect_is_refused_where_it_was_typed(
    chosen: tuple[str, ...], idle: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    row = {"messages": [], "instruction": "Ask.", "output": "Say.", "text": "One.", "part": "train"}
    file.write_text(f"{json.dumps(row)}\n")
    stages = "stages=[corpus,tokenizer,tokens,pretrain,instruct]"
    command = [*(text.format(file=file) for text in chosen), "scale=smoke", stages]
    if chosen[0].startswith("corpus"):
        command += ["instruction=task"]
    store = Store(tmp_path / "store")
    make_plan(command, store=store)  # a scale bounds num_conversations too, and nobody typed that
    with pytest.raises(ConfigError, match=f"{re.escape(idle)} changes nothing: "):
        make_plan([*command, idle], store=store)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("model.num_layers=1000000000000", "model.num_layers=1000000000000 must be at most 4096"),
        ("attention=multi_head_latent attention.rope_dim=16", "rope_dim=16 must be below model.head_dim=16"),
        ("attention=mamba2 attention.state_dim=1000000000000", "state_dim=1000000000000 must be at most"),
        (
            "feed_forward=moe_switch feed_forward.num_experts=5000",
            "num_experts=5000 must lie between 2 and 4096",
        ),
        ("peft=boft peft.butterfly_factors=33", "butterfly_factors=33 must lie between 1 and 32"),
    ],
)
def test_a_size_that_no_machine_could_plan_is_refused(asked: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        make_plan([*OWN, *asked.split()], store=Store(tmp_path))
