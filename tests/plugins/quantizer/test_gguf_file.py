"""GGUF files: read back by the package and by transformers, and run by llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer import _gguf_file
from harness_plugins.quantizer._gguf_file import write_gguf
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

from harness import IncompatibleError
from harness.axes.tokenizer import SPECIAL_TOKENS
from harness.data.tokenization import load_tokenizer, save_tokenizer

KINDS = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
IDS = torch.arange(7, 39)[None]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    tiny.byte_tokenizer(tmp_path / "tokenizer")
    return load_tokenizer(tmp_path / "tokenizer")


def written(directory: Path, tokenizer: Any, kind: str) -> tuple[Path, torch.Tensor, Any]:
    """A file, the logits of the packed model it stands for, and the packed model."""
    method = tiny.choose("quantizer", "gguf", format=kind).build()
    file = method.write_file(tiny.llama(dim=64, kv_heads=2), tokenizer, directory)
    packed = method.quantize(tiny.llama(dim=64, kv_heads=2), None)
    with torch.no_grad():
        return file, packed(input_ids=IDS).logits, packed


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_the_bytes_of_the_packed_layers(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    from gguf import GGUFReader

    file, _, packed = written(tmp_path, tokenizer, kind)
    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    down = torch.from_numpy(tensors["blk.1.ffn_down.weight"].data.copy())
    assert torch.equal(down, packed.model.layers[1].mlp.down_proj.blocks)
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == kind.upper()
    layers = [t for t in tensors.values() if t.name.startswith("blk.") and "norm" not in t.name]
    bits = 8 * sum(t.n_bytes for t in layers) / sum(int(t.n_elements) for t in layers)
    assert bits == tiny.choose("quantizer", "gguf", format=kind).build().bits_per_weight(64, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_it_back_as_the_packed_model(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

    file, expected, _ = written(tmp_path, tokenizer, kind)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-5)


class LlamaCpp:
    """llama.cpp itself on a file."""

    def __init__(self, file: Path) -> None:
        import xllamacpp

        options = xllamacpp.CommonParams()
        options.model.path = str(file)
        options.n_ctx, options.n_parallel, options.cpuparams.n_threads = 128, 1, 1
        self.server = xllamacpp.Server(options)

    def complete(self, prompt: str | list[int], count: int, **options: Any) -> dict[str, Any]:
        """Its answer to a prompt, without sampling."""
        asked = {"prompt": prompt, "max_tokens": count, "temperature": 0.0, **options}
        answer: dict[str, Any] = self.server.handle_completions(asked)
        return answer

    def log_probabilities(self, prompt: str | list[int]) -> torch.Tensor:
        """Of every next token (V). It answers nothing for half a character: it says A."""
        says_a = [[4 + sorted(ByteLevel.alphabet()).index("A"), 100.0]]
        answer = self.complete(prompt, 1, logprobs=tiny.VOCABULARY, logit_bias=says_a)
        (place,) = answer["choices"][0]["logprobs"]["content"]
        found = torch.full((tiny.VOCABULARY,), float("nan"))
        for token in place["top_logprobs"]:
            found[token["id"]] = token["logprob"]
        return found


def distance(runner: LlamaCpp, packed: Any) -> float:
    """How far its logits lie from the packed model's along its own greedy continuation, relative."""
    ids, rows = IDS[0].tolist(), []
    for _ in range(16):
        rows.append(runner.log_probabilities(ids))
        ids.append(int(rows[-1].argmax()))
    with torch.no_grad():
        expected_TV = packed(input_ids=torch.tensor([ids])).logits[0, IDS.shape[1] - 1 : -1]
    found_TV, expected_TV = (x - x.mean(-1, keepdim=True) for x in (torch.stack(rows), expected_TV))
    return float((found_TV - expected_TV).norm() / expected_TV.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_computes_the_same(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    file, _, packed = written(tmp_path, tokenizer, kind)
    runner = LlamaCpp(file)
    assert distance(runner, packed) < 0.03  # llama.cpp rounds the inputs of each product to 8 bits
    assert runner.complete("def f(x):", 12, ignore_eos=True)["usage"]["completion_tokens"] == 12


def test_the_comparison_with_llama_cpp_sees_rows_out_of_order(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_gguf_file, "interleaved", lambda weight, heads: weight)
    file, _, packed = written(tmp_path, tokenizer, "q8_0")
    assert distance(LlamaCpp(file), packed) > 0.3


@pytest.mark.parametrize("merges", [0, 4])
def test_llama_cpp_splits_text_as_our_tokenizer(merges: int, tmp_path: Path) -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=260 + merges, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=ByteLevel.alphabet()
    )
    trained.train_from_iterator(["def f(x): return x  # defines f"] * 9, trainer)
    save_tokenizer(trained, tmp_path / "tokenizer")
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    file, _, _ = written(tmp_path, tokenizer, "q8_0")
    text = "def define(x): return 'caf\u00e9'\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert (len(ids) < len(text.encode())) == bool(merges)
    runner = LlamaCpp(file)
    assert runner.complete(text, 1)["usage"]["prompt_tokens"] == len(ids)
    assert torch.equal(runner.log_probabilities(text), runner.log_probabilities(ids))


def family(name: str, **more: Any) -> Any:
    """A small model of a Hugging Face family with weights and biases of usual size."""
    import transformers

    shape = {**tiny.SIZES, "vocab_size": tiny.VOCABULARY, "hidden_size": 64, "intermediate_size": 128}
    shape |= {"head_dim": 16, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{name}Config")(**{**shape, **more})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, 0.1)
    return model


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 32, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}),
        ("Llama", {"rope_parameters": LLAMA3}),
        ("Qwen2", {"tie_word_embeddings": True}),
        ("Qwen3", {}),
    ],
)
def test_llama_cpp_computes_other_families_biases_and_scalings(
    name: str, more: dict[str, Any], tmp_path: Path, tokenizer: Any
) -> None:
    method = tiny.choose("quantizer", "gguf", format="q8_0").build()
    file = method.write_file(family(name, **more), tokenizer, tmp_path)
    packed = method.quantize(family(name, **more), None)
    assert distance(LlamaCpp(file), packed) < 0.03  # llama.cpp rounds the inputs of each product to 8 bits


def test_the_chat_template_lies_in_the_file(tmp_path: Path) -> None:
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=264, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=ByteLevel.alphabet()
    )
    trained.train_from_iterator(["def f(x): return x"] * 9, trainer)
    save_tokenizer(trained, tmp_path / "tokenizer")
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    tokenizer.chat_template = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    file, _, _ = written(tmp_path, tokenizer, "q8_0")
    field = GGUFReader(file).get_field("tokenizer.chat_template")
    assert field is not None
    assert field.contents() == tokenizer.chat_template
    again = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    turns = [{"role": "user", "content": "hi"}]
    assert again.apply_chat_template(turns, tokenize=False) == "<|user|>hi"


def splitting(kind: str) -> Any:
    """How a known model splits text before it merges."""
    from tokenizers import Regex, pre_tokenizers

    bytes_alone = ByteLevel(add_prefix_space=False, use_regex=False)
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, ByteLevel(add_prefix_space=False)])
    pattern = {name: pattern for pattern, name in _gguf_file.SPLITS.items()}[kind]
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_alone])


@pytest.mark.parametrize("kind", ["smollm", "llama-bpe", "qwen2"])
def test_llama_cpp_splits_text_as_each_known_tokenizer(kind: str, tmp_path: Path) -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = splitting(kind)
    trainer = trainers.BpeTrainer(
        vocab_size=264, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=ByteLevel.alphabet()
    )
    trained.train_from_iterator(["1234 1234 12345!! HE'S (1234)"] * 9, trainer)
    save_tokenizer(trained, tmp_path / "tokenizer")
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    file, _, _ = written(tmp_path, tokenizer, "q8_0")
    text = "He'll pay 12345, not 1234567!!\n\n  HE'S 12"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    runner = LlamaCpp(file)
    assert runner.complete(text, 1)["usage"]["prompt_tokens"] == len(ids)
    assert torch.equal(runner.log_probabilities(text), runner.log_probabilities(ids))


def test_text_that_llama_cpp_would_split_otherwise_is_left_to_token_ids(tmp_path: Path) -> None:
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    trained = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(" ", "merged_with_next")
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [words, ByteLevel(use_regex=False, add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=264, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=ByteLevel.alphabet()
    )
    trained.train_from_iterator(["1234 1234"], trainer)
    save_tokenizer(trained, tmp_path / "tokenizer")
    file, _, _ = written(tmp_path, load_tokenizer(tmp_path / "tokenizer"), "q8_0")
    field = GGUFReader(file).get_field("tokenizer.ggml.model")
    assert field is not None
    assert field.contents() == "none"


def test_bytes_survive_unpacking_and_packing_again() -> None:
    for kind in KINDS:
        method = tiny.choose("quantizer", "gguf", format=kind).build()
        layer = torch.nn.Linear(128, 64, bias=False)
        packed = method.pack(layer)
        layer.weight.data = packed.dequantize()
        assert torch.equal(method.pack(layer).blocks, packed.blocks), kind


def test_what_the_file_cannot_say_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = tiny.llama()
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(IncompatibleError, match="linear or llama3 rotary scaling, and this has dynamic"):
        write_gguf(model, tokenizer, tmp_path / "a.gguf", kind="q4_0")
    other = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=32))
    with pytest.raises(IncompatibleError, match="and this is gpt2"):
        write_gguf(other, tokenizer, tmp_path / "b.gguf", kind="q4_0")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inputs", [32, 96])
def test_products_are_those_of_the_stored_weight(kind: str, dtype: torch.dtype, inputs: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(inputs, 48, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(48, inputs, generator=generator) + 0.5)
        layer.weight[3] = 0.0  # a block without a scale
    packed = tiny.choose("quantizer", "gguf", format=kind).build().pack(layer)
    weight = packed.dequantize().double()
    for rows in (1, 5, 40):
        x = torch.randn(rows, inputs, generator=generator).to(dtype)
        exact = x.double() @ weight.T
        allowed = 2 * float((x @ weight.to(dtype).T - exact).norm())
        assert float((packed(x) - exact).norm()) <= allowed, f"{rows} rows"
