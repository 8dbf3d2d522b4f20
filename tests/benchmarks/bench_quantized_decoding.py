"""Tokens a second of a model in 4 and 8 bits beside 16 bits, and beside llama.cpp on the file of one of them.

The model is the one that `harness fetch smollm2_135m` brings, or the directory that REAL_MODEL names. One
sequence is continued greedily by one thread each, in turn; seconds are of the processor.
"""

import os
import statistics
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from bench import in_turn, show

from harness.data.tokenization import load_tokenizer
from harness.model.gguf import dequantized

MODEL = os.environ.get("REAL_MODEL", "")
PROMPT, NEW, ROUNDS = list(range(400, 416)), 32, 3
GROUPED = {"granularity": "group", "group_size": 64}
PACKED = {
    "gguf q4_0": ("gguf", {"format": "q4_0"}),
    "rtn 4, groups of 64": ("rtn", {"bits": 4, **GROUPED}),
    "rtn 8": ("rtn", {"bits": 8}),
    "nf4": ("nf4", {}),
}


def _load(directory):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()


def _ours(model):
    """Continue the prompt by exactly NEW tokens."""
    ids = torch.tensor([PROMPT])
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    return lambda: model.generate(ids, attention_mask=torch.ones_like(ids), **options)


def _llama_cpp(file):
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = str(file)
    options.n_ctx, options.n_parallel, options.cpuparams.n_threads = 128, 1, 1
    options.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(options)
    asked = {
        "prompt": PROMPT,
        "max_tokens": NEW,
        "temperature": 0.0,
        "ignore_eos": True,
        "cache_prompt": False,
    }

    def run():
        assert server.handle_completions(asked)["usage"]["completion_tokens"] == NEW

    return run


@pytest.mark.slow
@torch.inference_mode()
def test_a_packed_model_decodes_no_slower_than_in_16_bits(request, tmp_path):
    torch.set_num_threads(1)
    directory = Path(MODEL) if MODEL else dequantized(request.getfixturevalue("smollm2"), root=tmp_path)
    actions = {"16 bit": _ours(_load(directory))}
    for name, (quantizer, options) in PACKED.items():
        method = tiny.choose("quantizer", quantizer, **options).build()
        if quantizer == "gguf":
            file = method.write_file(_load(directory).float(), load_tokenizer(directory), tmp_path)
            actions["llama.cpp, gguf q4_0"] = _llama_cpp(file)
        actions[name] = _ours(method.quantize(_load(directory), None))
    found = in_turn(actions, rounds=ROUNDS)
    rate = {name: NEW / statistics.median(seconds) for name, seconds in found.items()}
    rows = [(name, value, value / rate["16 bit"]) for name, value in rate.items()]
    show("Decoding one sequence, one thread", ("weights", "tokens/s", "of 16 bit"), rows)
    assert rate["gguf q4_0"] > 0.9 * rate["16 bit"]
    assert rate["rtn 4, groups of 64"] > 0.9 * rate["16 bit"]
    assert rate["rtn 8"] > 0.8 * rate["16 bit"]
