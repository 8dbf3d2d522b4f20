"""The prune stage: what it measures, what it leaves to the stages around it, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.axes.corpus import Split
from harness.compose import compose
from harness.data.token_files import TokenWriter
from harness.errors import EffectError, IncompatibleError
from harness.model.artifact import Delta, load_model, save_model
from harness.model.sparsity import sparsity, weights_by_layer
from harness.plan.problems import problems
from harness.registry.known import registry
from harness.stages.prune import measured

CALIBRATED = ["prune.calibration_sequences=8", "prune.calibration_length=16"]
CHAIN = "stages=[corpus,tokenizer,tokens,pretrain,instruct,prune,quantize,evaluate]"


class Bench:
    """A Llama on a shelf, and stages run on it one after another."""

    def __init__(self, root: Path) -> None:
        self.shelf = tiny.Shelf(root)
        tiny.byte_tokenizer(self.shelf.new("tokenizer", "tokenizer").path)
        self.inputs = {"model": self.shelf.new("model"), "tokens": self.shelf.new("tokens", "tokens")}
        save_model(
            self.inputs["model"].path,
            tiny.llama(dim=64),
            base={},
            delta="weights",
            applied=[],
            tokenizer="tokenizer",
        )
        writer = TokenWriter(self.inputs["tokens"].path, vocab_size=tiny.VOCABULARY, bos_id=1, eos_id=2)
        ids = torch.randint(7, tiny.VOCABULARY, (4000,), generator=torch.Generator().manual_seed(0))
        writer.add("train", "code", ids.tolist(), num_bytes=4000)
        writer.finish(Split.train)
        writer.write_index({"code": 1.0})

    def run(self, stage: str, *overrides: str, seed: int = 0) -> dict[str, Any]:
        """A stage on the last model; its artifact is the next one's."""
        out = self.shelf.new(f"out{len(self.shelf.artifacts)}")
        given = [*CALIBRATED, *overrides]
        work = tiny.work(self.shelf, stage, out, given, dict(self.inputs))
        work.seed = seed
        facts = registry().stage(stage)().run(work)
        self.inputs["model"] = out
        return facts

    def model(self, **options: Any) -> Any:
        return load_model(self.inputs["model"], self.shelf.load, **options).model  # type: ignore[arg-type]

    def put_adapter(self, method: str) -> None:
        """An adapter on the last model, as tuning leaves it, its numbers drawn."""
        choice = tiny.choose("peft", method)
        peft = choice.build()
        model = peft.apply(self.model())
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.5)
        out = self.shelf.new(f"out{len(self.shelf.artifacts)}")
        base = {"key": self.inputs["model"].key}
        save_model(
            out.path, model, base=base, delta="adapter", applied=[], tokenizer="tokenizer", adapter=choice
        )
        self.inputs["model"] = out


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_the_record_says_what_was_removed(bench: Bench, method: str) -> None:
    dense = dict(weights_by_layer(bench.model()))
    facts = bench.run("prune", f"pruner={method}", "pruner.sparsity=0.6")
    found = dict(weights_by_layer(bench.model()))
    shares = {name: float((weight == 0).float().mean()) for name, weight in found.items()}
    assert facts["layer_sparsity"] == pytest.approx(shares)
    assert facts["sparsity_before"] == 0
    assert facts["sparsity"] == pytest.approx(sparsity(bench.model())) == pytest.approx(0.6, abs=0.01)
    linear = sum(weight.numel() for weight in found.values())
    whole = sum(p.numel() for p in bench.model().parameters())
    assert facts["pruned_share"] == pytest.approx(facts["sparsity"] * linear / whole)
    assert facts["pruned_layers"] == len(dense) == 14
    assert facts["effects"][f"pruner={method}"]["weights"]
    calibrated = method != "magnitude"
    assert facts["calibration_tokens"] == (8 * 16 if calibrated else 0)
    assert bool(facts["calibration_sha256"]) is calibrated
    assert ("layer_errors" in facts) is (method == "sparsegpt")
    assert tiny.manifest(bench.inputs["model"])["applied"][-1]["method"] == method


def test_only_a_calibrated_pruner_depends_on_the_seed(tmp_path: Path) -> None:
    weights = {}
    for method in ("magnitude", "wanda"):
        for seed in (0, 1):
            bench = Bench(tmp_path / f"{method}{seed}")
            facts = bench.run("prune", f"pruner={method}", seed=seed)
            weights[method, seed] = facts["effects"][f"pruner={method}"]["weights"]
    assert weights["magnitude", 0] == weights["magnitude", 1]
    assert weights["wanda", 0] != weights["wanda", 1]


@pytest.mark.parametrize("quantizer", ["rtn", "nf4", "gptq", "gguf"])
def test_the_record_says_what_a_quantizer_leaves_of_it(bench: Bench, quantizer: str) -> None:
    bench.run("prune", "pruner=wanda", "pruner.pattern=2:4")
    given = ["quantize.calibration_sequences=32", "quantize.calibration_length=16"]
    facts = bench.run("quantize", f"quantizer={quantizer}", *given)
    assert facts["sparsity_before"] == 0.5
    assert facts["sparsity"] == pytest.approx(sparsity(bench.model()))
    kept = dict(weights_by_layer(bench.model()))
    if quantizer in ("rtn", "nf4"):  # a whole zero point, and a level that is zero
        assert facts["sparsity"] >= 0.5
    if quantizer == "gptq":  # its compensation moves weights that were zero
        assert facts["sparsity"] < 0.5
    assert sum(int((w == 0).sum()) for w in kept.values()) == round(
        facts["sparsity"] * sum(w.numel() for w in kept.values())
    )


def test_an_adapter_that_can_be_merged_is(bench: Bench) -> None:
    bench.put_adapter("lora")
    tuned = dict(weights_by_layer(bench.model()))
    facts = bench.run("prune", "pruner=magnitude")
    assert facts["adapter"] == "none or merged"
    for name, weight in weights_by_layer(bench.model()):
        assert torch.equal(weight, torch.where(weight == 0, 0, tuned[name])), "of the tuned weights"


def test_an_adapter_that_cannot_stays_beside_the_pruned_weights(bench: Bench) -> None:
    bench.put_adapter("prefix_tuning")
    ids = torch.arange(8, 20)[None]
    tuned = bench.model()(input_ids=ids).logits
    facts = bench.run("prune", "pruner=magnitude", "pruner.sparsity=0.01")
    assert facts["adapter"] == "kept whole"
    assert (bench.inputs["model"].path / "adapter").is_dir()
    found = bench.model()
    assert sparsity(bench.model(adapters=False)) == pytest.approx(0.01, abs=0.002)
    close = (found(input_ids=ids).logits - tuned).norm() / tuned.norm()
    without = (bench.model(adapters=False)(input_ids=ids).logits - tuned).norm() / tuned.norm()
    assert close < 0.1 * without, "the prefix acts on the pruned weights"
    bench.run("quantize", "quantizer=rtn", "quantizer.bits=8")
    packed = (bench.model()(input_ids=ids).logits - tuned).norm() / tuned.norm()
    assert packed < 0.2 * without, "and on the packed ones"


def test_packed_weights_are_refused_by_plan_and_stage(bench: Bench) -> None:
    bench.run("quantize", "quantizer=rtn")
    with pytest.raises(IncompatibleError, match="pruner=magnitude: the model is packed already; put prune"):
        bench.run("prune", "pruner=magnitude")
    cell = compose(
        [
            "pruner=magnitude",
            "quantizer=rtn",
            "stages=[corpus,tokenizer,tokens,pretrain,quantize,prune,evaluate]",
        ]
    )
    assert any(
        "quantize packs the weights before; put prune before quantize" in str(p) for p in problems(cell)
    )
    right = compose(["pruner=magnitude", "quantizer=rtn", CHAIN, "instruction=task"])
    assert [p for p in problems(right) if p.fatal] == []


def test_a_model_as_sparse_already_is_refused(bench: Bench) -> None:
    bench.run("prune", "pruner=magnitude")
    with pytest.raises(EffectError, match="pruner=magnitude was asked for and changed nothing"):
        bench.run("prune", "pruner=magnitude")


def test_too_little_or_a_broken_pattern_is_an_error() -> None:
    method = tiny.choose("pruner", "magnitude", pattern="2:4").build()
    model = tiny.llama(dim=32)
    with pytest.raises(EffectError, match=r"removed 0\.0000 of layer .* instead of 0\.5"):
        measured(model, method)
    tiny.choose("pruner", "magnitude", sparsity=0.8).build().prune(model, None)
    with pytest.raises(EffectError, match=r"left [34] of 4 inputs in layer .*, not 2 at most"):
        measured(model, method)


def test_delta_weights_without_an_adapter_are_as_before(bench: Bench) -> None:
    bench.run("prune", "pruner=magnitude")
    manifest = tiny.manifest(bench.inputs["model"])
    assert (manifest["delta"], manifest["adapter"]) == (Delta.weights, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["pruner.pattern=2:5"], "does not divide its"),
        (
            ["prune.calibration_sequences=1", "prune.calibration_length=8"],
            "calibration tokens, and pruner=sp",
        ),
        (["corpus.max_bytes=1000"], "needs 32 x 128 = 4096 tokens"),
        (["stages=[prune,evaluate]", "model=pretrained", "model.path=."], "put corpus before it in stages"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_anything_runs(
    tmp_path: Path, given: list[str], message: str
) -> None:
    path = str(tiny.pretrained(tmp_path / "llama"))
    cell = compose(["pruner=sparsegpt", *(text.replace("path=.", f"path={path}") for text in given)])
    assert any(message in str(problem) for problem in problems(cell)), problems(cell)


def test_it_stands_between_alignment_and_quantization() -> None:
    order = list(registry().stages)
    assert order.index("align") < order.index("prune") < order.index("quantize")
    assert "prune" in compose(["pruner=wanda"]).stages
    assert not registry().stage("prune").active(compose(["pruner=none"]))
