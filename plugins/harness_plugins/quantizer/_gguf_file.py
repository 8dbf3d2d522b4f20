"""GGUF files of Llama, Qwen2 and Qwen3 models, as llama.cpp and transformers read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from harness import IncompatibleError, linear_layers

FILE_TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9}
"""llama.cpp's number for a file whose layers are mostly of a format."""
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
MODEL_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

PAIRED = "llama"
"""The family whose rotation llama.cpp computes on neighbouring rows; of others it turns halves of heads."""
FAMILIES = (PAIRED, "qwen2", "qwen3")
"""Model types whose name is llama.cpp's too."""
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""How Llama 3 and Qwen split text, but for digits."""
SPLITS = {WORDS % r"\p{N}{1,3}": "llama-bpe", WORDS % r"\p{N}": "qwen2"}
"""llama.cpp's name for the split of text before merges, by the pattern of a tokenizer."""


def gguf_name(name: str) -> str:
    """llama.cpp's name of a parameter of a Hugging Face model."""
    module, _, kind = name.rpartition(".")
    if module in MODEL_NAMES:
        return f"{MODEL_NAMES[module]}.{kind}"
    _, _, index, inner = module.split(".", 3)
    return f"blk.{index}.{LAYER_NAMES[inner]}.{kind}"


def interleaved(value: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotary projection, or its bias, in llama.cpp's order for a Llama: the two halves of each
    head, one row each in turn."""
    halves = value.reshape(heads, 2, -1, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape)


def write_gguf(model: Any, tokenizer: Any, file: Path, *, kind: str) -> None:
    """Write a Hugging Face model; linear layers in blocks of `kind`, everything else as it is.

    Raises: IncompatibleError for a family or rotary scaling that the file could not say
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    refuse(model)
    config = model.config
    writer = GGUFWriter(file, config.model_type)
    add_shape(writer, config, kind)
    add_vocabulary(writer, tokenizer, config)
    add_scaling(writer, config)
    packed = {f"{name}.weight" for name in linear_layers(model)}
    block = GGMLQuantizationType[kind.upper()]
    for name, parameter in model.named_parameters():
        value = parameter.detach().float().cpu().contiguous().numpy()
        if config.model_type == PAIRED and ".q_proj." in name:
            value = interleaved(value, config.num_attention_heads)
        elif config.model_type == PAIRED and ".k_proj." in name:
            value = interleaved(value, config.num_key_value_heads)
        if name in packed:
            writer.add_tensor(gguf_name(name), quantize(np.ascontiguousarray(value), block), raw_dtype=block)
        else:
            writer.add_tensor(gguf_name(name), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def refuse(model: nn.Module) -> None:
    """Refuse what llama.cpp does not compute of a family.

    Raises: IncompatibleError
    """
    config: Any = model.config
    if config.model_type not in FAMILIES:
        raise IncompatibleError(
            f"a GGUF file is written for model types {', '.join(FAMILIES)}, and this is {config.model_type}"
        )
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        raise IncompatibleError("a GGUF file is written for full attention, and this has layers of others")
    kind = scaling_of(config).get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):
        raise IncompatibleError(
            f"a GGUF file is written with default, linear or llama3 rotary scaling, and this has {kind}"
        )
    names = {name for name, _ in model.named_parameters()}
    strange = sorted(name for name in names if name.endswith(".bias") and not known_bias(config, name))
    if strange:
        raise IncompatibleError(f"llama.cpp's {config.model_type} reads no bias {strange[0]}")


def known_bias(config: Any, name: str) -> bool:
    """Whether llama.cpp adds a bias: to all layers of a block of a Llama, to Qwen2's queries, keys and
    values."""
    layer = name.split(".")[-2]
    qkv = ("q_proj", "k_proj", "v_proj")
    if config.model_type == PAIRED:
        return layer in (*qkv, "o_proj", "gate_proj", "up_proj", "down_proj")
    return config.model_type == "qwen2" and layer in qkv


def scaling_of(config: Any) -> dict[str, Any]:
    """What a config says of rotary positions."""
    return dict(getattr(config, "rope_parameters", None) or {})


def add_scaling(writer: Any, config: Any) -> None:
    """Rotary scaling: a factor on positions, or Llama 3's on each frequency, which is a tensor."""
    from gguf import RopeScalingType

    rope = scaling_of(config)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope.get("rope_type") == "llama3":
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
        steps = np.arange(0, 2 * len(scaled), 2) / (2 * len(scaled))
        plain = float(rope["rope_theta"]) ** -steps
        writer.add_tensor("rope_freqs.weight", (plain / scaled.numpy()).astype(np.float32))


def add_shape(writer: Any, config: Any, kind: str) -> None:
    """The model's sizes."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(2)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def split_name(state: dict[str, Any]) -> str | None:
    """llama.cpp's name for how a byte-level BPE splits text before it merges; None where it has none."""
    found = state["pre_tokenizer"] or {}
    pieces = [piece for piece in found.get("pretokenizers", [found]) if piece]
    kinds = [piece["type"] for piece in pieces]
    if state["model"]["type"] != "BPE" or kinds[-1:] != ["ByteLevel"] or pieces[-1]["add_prefix_space"]:
        return None
    if pieces[-1].get("use_regex", True):
        if kinds == ["Digits", "ByteLevel"] and pieces[0]["individual_digits"]:
            return "smollm"
        return "gpt-2" if kinds == ["ByteLevel"] else None
    if kinds != ["Split", "ByteLevel"] or pieces[0]["behavior"] != "Isolated" or pieces[0]["invert"]:
        return None
    return SPLITS.get(pieces[0]["pattern"].get("Regex", ""))


def add_vocabulary(writer: Any, tokenizer: Any, config: Any) -> None:
    """A byte-level BPE with its merges, where llama.cpp splits text as it does, and the chat template; any
    other tokenizer is left out, and the file takes token ids."""
    from gguf import TokenType

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    split = split_name(state)
    if split is None:
        writer.add_tokenizer_model("none")
        return
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    size = config.vocab_size
    tokens = [by_id.get(index, f"<unused {index}>") for index in range(size)]
    types = [
        TokenType.UNUSED if i not in by_id else TokenType.CONTROL if i in special else TokenType.NORMAL
        for i in range(size)
    ]
    merges = [m if isinstance(m, str) else " ".join(m) for m in state["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # llama.cpp wants one merge at least; where there is no other, nothing ever forms the parts of this one.
    writer.add_token_merges(merges or ["no merges"])
    # Said either way: what llama.cpp does else follows from the name of the split.
    begun = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begun)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
    for name in ("bos", "eos", "unk", "pad"):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(token)
