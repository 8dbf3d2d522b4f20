"""GGUF files of Llama-shaped models, as llama.cpp and transformers read them."""

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
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
MODEL_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a parameter of a Hugging Face Llama."""
    module = name.removesuffix(".weight")
    if module in MODEL_NAMES:
        return f"{MODEL_NAMES[module]}.weight"
    _, _, index, inner = module.split(".", 3)
    return f"blk.{index}.{LAYER_NAMES[inner]}.weight"


def interleaved(weight_OI: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotary projection in llama.cpp's order: the two halves of each head, one row each in turn."""
    halves = weight_OI.reshape(heads, 2, -1, weight_OI.shape[1])
    return halves.swapaxes(1, 2).reshape(weight_OI.shape)


def write_gguf(model: Any, tokenizer: Any, file: Path, *, kind: str) -> None:
    """Write a Hugging Face Llama; linear layers in blocks of `kind`, everything else as it is.

    Raises: IncompatibleError for a family, bias or rotary scaling that the file could not say
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    refuse(model)
    config = model.config
    writer = GGUFWriter(file, "llama")
    add_shape(writer, config, kind)
    add_vocabulary(writer, tokenizer, config)
    packed = {f"{name}.weight" for name in linear_layers(model)}
    block = GGMLQuantizationType[kind.upper()]
    for name, parameter in model.named_parameters():
        value = parameter.detach().float().cpu().contiguous().numpy()
        if name.endswith("q_proj.weight"):
            value = interleaved(value, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
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
    """Refuse what llama.cpp's Llama does not compute.

    Raises: IncompatibleError
    """
    config: Any = model.config
    if config.model_type != "llama":
        raise IncompatibleError(
            f"a GGUF file is written for model type llama, and this is {config.model_type}"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise IncompatibleError(
            f"a GGUF file is written without rotary scaling, and this has {rope['rope_type']}"
        )
    biased = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    if biased:
        raise IncompatibleError(f"a GGUF file of a Llama has no biases, and this has {biased[0]}")


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


def add_vocabulary(writer: Any, tokenizer: Any, config: Any) -> None:
    """A byte-level BPE with its merges; any other tokenizer is left out, and the file takes token ids."""
    from gguf import TokenType

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = state["pre_tokenizer"] or {}
    kinds = {piece["type"] for piece in [pieces, *pieces.get("pretokenizers", [])] if piece}
    if state["model"]["type"] != "BPE" or "ByteLevel" not in kinds:
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
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # llama.cpp wants one merge at least; where there is no other, nothing ever forms the parts of this one.
    writer.add_token_merges(merges or ["no merges"])
    for name in ("bos", "eos", "unk", "pad"):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(token)
