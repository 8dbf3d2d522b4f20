"""Adapters on disk are the peft library's own: it reads ours, and puts several on one stored base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import Tensor, nn

from harness.conformance.causal import causal_model, logits, tokens
from harness.conformance.test_peft import train_a_little
from harness.registry.known import registry

LIBRARY = [
    *("lora", "dora", "adalora", "ia3", "prefix_tuning", "prompt_tuning", "p_tuning"),
    *("llama_adapter", "rslora", "pissa", "lora_plus", "vera", "oft", "boft"),
]
"""Every method of ours that the library has."""


def saved(name: str, directory: Path) -> Any:
    """A model whose adapter was trained and saved."""
    method = tiny.choose("peft", name).build()
    model = method.apply(causal_model().requires_grad_(False))
    train_a_little(model)
    method.save(model, directory)
    return model


def last_logits(model: nn.Module) -> Tensor:
    """Logits of the real tokens; the library returns virtual ones before them."""
    return logits(model, tokens())[:, -tokens().shape[1] :]


@pytest.mark.parametrize("name", LIBRARY)
def test_the_peft_library_reads_an_adapter_of_ours(name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    ours = saved(name, tmp_path).double()  # what differs then is no rounding of sums
    theirs = PeftModel.from_pretrained(causal_model(), str(tmp_path)).double()
    # PiSSA rounds W - B A to the weights' format; theirs adds to W itself, which differs in the last place.
    within = 1e-5 if name == "pissa" else 1e-6
    assert torch.allclose(last_logits(ours), last_logits(theirs), atol=within)
    assert not torch.allclose(last_logits(theirs), last_logits(causal_model().double()), atol=1e-4)


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_an_adapter_of_the_peft_library_is_read(name: str, tmp_path: Path) -> None:
    from peft import IA3Config, LoraConfig, get_peft_model

    made = {
        "lora": LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"),
        "ia3": IA3Config(
            target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
        ),
    }[name]
    theirs = get_peft_model(causal_model(), made)
    train_a_little(theirs)
    theirs.save_pretrained(str(tmp_path))
    method = tiny.choose("peft", name).build()
    ours = method.load(causal_model(), tmp_path, trainable=False)
    assert torch.allclose(last_logits(ours), last_logits(theirs), atol=1e-5)
    assert torch.allclose(last_logits(method.merge(ours)), last_logits(theirs), atol=2e-5)


def test_several_adapters_stand_on_one_stored_base(tmp_path: Path) -> None:
    from peft import PeftModel

    from harness.model.artifact import load_model

    shelf = tiny.Shelf(tmp_path / "shelf")
    shared = [
        *("model=pretrained", f"model.path={tiny.pretrained(tmp_path / 'hf')}", "instruction=task"),
        *("instruction.num_items=60", "instruct.budget={unit: steps, amount: 3}", "instruct.batch_size=4"),
    ]
    base = shelf.new("base")
    registry().stage("instruct")().run(tiny.work(shelf, "instruct", base, [*shared, "peft=full"], {}))
    tuned = {}
    for name, options in {
        "small": ["peft=lora", "peft.rank=2"],
        "large": ["peft=lora", "peft.rank=8", "instruct.learning_rate=1e-2"],
        "factors": ["peft=ia3", "instruct.learning_rate=1e-1"],
    }.items():
        tuned[name] = shelf.new(name)
        work = tiny.work(shelf, "instruct", tuned[name], [*shared, *options], {"model": base})
        facts = registry().stage("instruct")().run(work)
        files = sorted(path.name for path in tuned[name].path.rglob("*.safetensors"))
        assert files == ["adapter_model.safetensors"], "the base's weights are not copied"
        assert facts["checkpoint_bytes"] < 0.5 * (base.path / "model.safetensors").stat().st_size
        assert tiny.manifest(tuned[name])["base"] == {"key": "base"}
    ids_BT = torch.arange(20)[None] + 7
    apart = {
        name: logits(load_model(artifact, shelf.load, merge=False).model, ids_BT)
        for name, artifact in tuned.items()
    }
    one = load_model(base, shelf.load).model
    together = PeftModel.from_pretrained(one, str(tuned["small"].path / "adapter"), adapter_name="small")
    together.load_adapter(str(tuned["large"].path / "adapter"), adapter_name="large")
    for name in ("small", "large"):
        together.set_adapter(name)
        assert torch.allclose(logits(together, ids_BT), apart[name], atol=1e-5)
    assert not torch.allclose(apart["small"], apart["large"], atol=1e-4)
    assert not torch.allclose(apart["small"], apart["factors"], atol=1e-4)
