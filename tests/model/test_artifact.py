from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models as tiny
import torch

from harness.errors import DataError
from harness.model.artifact import Delta, Loaded, describe, load_model, load_pretrained, restore, save_model

IDS = torch.arange(20)[None] + 7


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits  # type: ignore[no-any-return]


@pytest.fixture
def shelf(tmp_path: Path) -> tiny.Shelf:
    shelf = tiny.Shelf(tmp_path)
    tiny.byte_tokenizer(shelf.new("tok", "tokenizer").path)
    out = shelf.new("base")
    save_model(out.path, tiny.llama(), base={}, delta=Delta.weights, applied=[], tokenizer="tok")
    return shelf


def tune(
    shelf: tiny.Shelf, base: str, key: str, peft: str, **options: object
) -> tuple[Loaded, torch.nn.Module]:
    """Put an adapter on, move it by hand as training would, and save it."""
    choice = tiny.choose("peft", peft, **options)
    loaded = load_model(shelf.load(base), shelf.load, trainable=True)
    method = choice.build()
    fresh = loaded.adapter is None
    model = method.apply(loaded.model.requires_grad_(False)) if fresh else loaded.model
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    save_model(
        shelf.new(key).path,
        model,
        base=loaded.base if fresh else loaded.adapter_base,
        delta=method.delta,
        applied=[*loaded.applied, describe(choice)],
        tokenizer="tok",
        adapter=choice if method.delta == "adapter" else None,
    )
    return loaded, model


def quantize(shelf: tiny.Shelf, base: str, key: str, **options: object) -> torch.nn.Module:
    choice = tiny.choose("quantizer", "rtn", group_size=16, **options)
    loaded = load_model(shelf.load(base), shelf.load, adapters=False)
    model = choice.build().quantize(loaded.model, None)
    save_model(
        shelf.new(key).path,
        model,
        base=loaded.base,
        delta=Delta.packed,
        applied=[*loaded.applied, describe(choice)],
        tokenizer="tok",
        adapter=loaded.adapter,
        adapter_path=loaded.adapter_path,
    )
    return model


def test_full_weights_come_back_and_are_plain_hugging_face_directories(shelf: tiny.Shelf) -> None:
    from transformers import AutoModelForCausalLM

    loaded = load_model(shelf.load("base"), shelf.load)
    assert torch.equal(logits(loaded.model), logits(tiny.llama()))
    plain = AutoModelForCausalLM.from_pretrained(shelf.load("base").path)
    assert torch.equal(logits(plain), logits(tiny.llama()))


def test_any_hugging_face_directory_loads_as_a_base(tmp_path: Path) -> None:
    directory = tiny.pretrained(tmp_path / "hf")
    loaded = load_model(directory, lambda key: pytest.fail(key))
    assert loaded.base == {"path": str(directory)}
    assert torch.equal(logits(loaded.model), logits(tiny.llama()))


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no config\.json"):
        load_model(tmp_path, lambda key: pytest.fail(key))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: kept.pop("model.layers.1.mlp.up_proj.weight"), r"no model\.layers\.1\.mlp\.up_proj"),
        (
            lambda kept: kept.update({"model.norm.weight": torch.ones(3)}),
            r"model\.norm\.weight of \(3,\), where",
        ),
        (None, "its weights cannot be read"),
    ],
)
def test_a_checkpoint_whose_weights_would_be_drawn_at_random_is_refused(
    change: Callable[[dict[str, torch.Tensor]], object] | None, said: str, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    tiny.llama().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    if change is None:
        file.write_bytes(file.read_bytes()[:-100])
    else:
        kept = load_file(file)
        change(kept)
        save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(DataError, match=said):
        load_pretrained(str(tmp_path))


def test_an_adapter_is_merged_on_load_and_equals_the_unmerged_one(shelf: tiny.Shelf) -> None:
    _, model = tune(shelf, "base", "tuned", "lora")
    unmerged = load_model(shelf.load("tuned"), shelf.load, merge=False)
    merged = load_model(shelf.load("tuned"), shelf.load)
    assert unmerged.adapter is not None
    assert merged.adapter is None
    assert torch.equal(logits(unmerged.model), logits(model))
    assert torch.allclose(logits(merged.model), logits(model), atol=1e-5)
    assert not torch.allclose(logits(merged.model), logits(tiny.llama()), atol=1e-2)
    assert not list(shelf.load("tuned").path.glob("*.safetensors")), "the base is stored once"


def test_a_second_adapter_stands_on_the_merged_first(shelf: tiny.Shelf) -> None:
    tune(shelf, "base", "instructed", "lora")
    _, model = tune(shelf, "instructed", "aligned", "lora", rank=4)
    assert tiny.manifest(shelf.load("aligned"))["base"] == {"key": "instructed"}
    again = load_model(shelf.load("aligned"), shelf.load)
    assert torch.allclose(logits(again.model), logits(model), atol=1e-5)
    assert [e["config"]["rank"] for e in again.applied] == [8, 4]


def test_a_merged_then_quantized_model_reloads_bit_for_bit(shelf: tiny.Shelf) -> None:
    tune(shelf, "base", "tuned", "lora")
    model = quantize(shelf, "tuned", "small", bits=4)
    again = load_model(shelf.load("small"), shelf.load)
    assert again.packed
    assert torch.equal(logits(again.model), logits(model))


def test_an_adapter_on_packed_weights_continues_in_the_next_stage(shelf: tiny.Shelf) -> None:
    quantize(shelf, "base", "small", bits=4)
    _, first = tune(shelf, "small", "instructed", "lora")
    expected = logits(first)
    loaded, second = tune(shelf, "instructed", "aligned", "lora")
    assert loaded.adapter is not None
    assert tiny.manifest(shelf.load("aligned"))["base"] == {"key": "small"}
    again = load_model(shelf.load("aligned"), shelf.load)
    assert again.adapter is not None
    assert torch.equal(logits(again.model), logits(second))
    assert not torch.allclose(expected, logits(second), atol=1e-3)


def test_a_choice_survives_its_description() -> None:
    choice = tiny.choose("quantizer", "rtn", bits=3, granularity="channel")
    assert restore(describe(choice)) == choice


def test_a_damaged_packed_file_is_refused(shelf: tiny.Shelf) -> None:
    from safetensors.torch import load_file, save_file

    quantize(shelf, "base", "small", bits=4)
    file = shelf.load("small").path / "packed.safetensors"
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if name.endswith("codes")))
    save_file(tensors, file)
    with pytest.raises(DataError, match="does not fit its model"):
        load_model(shelf.load("small"), shelf.load)


def test_an_export_is_compared_by_the_logits_of_its_last_tokens_alone(tmp_path: Path) -> None:
    """All logits of a long text fill the memory: those of 8,240 tokens of SmolLM2 are 1.6 GB."""
    from harness.model.exported import PROBE, compare

    model, seen = tiny.llama(), []
    model.save_pretrained(tmp_path)
    model.lm_head.register_forward_hook(lambda _, __, out: seen.append(out.shape[1]))
    model.config.trained_length = 100
    model.config.max_position_embeddings = 200
    compare(model, tmp_path)
    assert seen == [PROBE, PROBE]
