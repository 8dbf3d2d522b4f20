"""Small models, tokenizers and artifacts that tests of adaptation share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from harness.compose import compose
from harness.method import Choice
from harness.registry.known import registry
from harness.stage import Work

VOCABULARY = 264


@dataclass
class FakeArtifact:
    """What a stage or the loader reads of an artifact."""

    key: str
    path: Path
    stage: str = ""
    kind: str = "model"
    inputs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Shelf:
    """Artifacts by key, in the order they were made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts: dict[str, FakeArtifact] = {}

    def new(self, key: str, kind: str = "model") -> FakeArtifact:
        path = self.root / key
        path.mkdir(parents=True)
        self.artifacts[key] = FakeArtifact(key=key, path=path, kind=kind)
        return self.artifacts[key]

    def load(self, key: str) -> FakeArtifact:
        return self.artifacts[key]


SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
"""Of the config of any Hugging Face family."""


def llama(seed: int = 0, *, dim: int = 32, layers: int = 2, kv_heads: int = 4) -> Any:
    """A random Llama with real-looking weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=dim,
        intermediate_size=2 * dim,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.1)
    return model


def mixture(family: str) -> Any:
    """A small model of a family of Hugging Face's with fused experts."""
    import transformers

    special: dict[str, dict[str, Any]] = {
        "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "Qwen3Moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
        "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES, **special[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return model


def byte_tokenizer(directory: Path) -> None:
    """A byte-level tokenizer without merges, saved as the tokenizer stage does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from harness.axes.tokenizer import SPECIAL_TOKENS
    from harness.data.tokenization import save_tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL_TOKENS[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS])
    save_tokenizer(tokenizer, directory)


def pretrained(directory: Path, seed: int = 0) -> Path:
    """A Hugging Face directory with model and tokenizer."""
    byte_tokenizer(directory)
    llama(seed).save_pretrained(directory)
    return directory


def choose(axis: str, name: str, **options: Any) -> Choice:
    """A choice as the command line makes it."""
    from harness.compose.typed import instance

    method = registry().get(axis, name)
    return Choice(axis=axis, method=method, config=instance(method.Config, options, where=axis))


def work(
    shelf: Shelf, stage: str, out: FakeArtifact, overrides: list[str], inputs: Mapping[str, FakeArtifact]
) -> Work:
    """A stage's work as the sweep hands it out."""

    cell = compose(overrides)
    kind = registry().stage(stage)
    choices: dict[str, Any] = {}
    for axis in kind.axes:
        chosen = (
            cell.choices(axis, stage=stage) if registry().axes[axis].many else cell.choice(axis, stage=stage)
        )
        if chosen is not None:
            choices[axis] = chosen
    checkpoints = shelf.root / f"{out.key}.checkpoints"
    checkpoints.mkdir()
    return Work(
        refers=registry().model_refs,
        stage=stage,
        maker=kind,
        part="",
        config=cell.stage_config(stage),
        choices=kind.narrow("", choices),
        inputs=inputs,  # type: ignore[arg-type]
        seed=0,
        device="cpu",
        out=out.path,
        checkpoints=checkpoints,
        load=shelf.load,  # type: ignore[arg-type]
        model_path=cell.model_path(),
        spec=cell.spec,
    )


def manifest(artifact: FakeArtifact) -> dict[str, Any]:
    """An artifact's model.json."""
    found: dict[str, Any] = json.loads((artifact.path / "model.json").read_text())
    return found
