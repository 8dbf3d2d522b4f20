"""The axes: one contract a file. The order below is the order in which methods act."""

from harness.method import Method

BUILTIN = (
    "corpus",
    "filter",
    "tokenizer",
    "mixture",
    "curriculum",
    "architecture",
    "attention",
    "position",
    "norm",
    "norm_position",
    "feed_forward",
    "objective",
    "context",
    "instruction",
    "instruction_strategy",
    "peft",
    "reward",
    "feedback",
    "alignment",
    "pruner",
    "rotation",
    "quantizer",
    "optimizer",
    "schedule",
    "batch_schedule",
    "stabilizer",
    "precision",
    "parallelism",
    "decoding",
    "evaluator",
    "judge",
    "tracker",
)
"""Axes that ship with harness; `harness.axes.<axis>` holds each contract."""

MODEL_AXES = (
    "architecture",
    "attention",
    "position",
    "norm",
    "norm_position",
    "feed_forward",
)
"""Axes that shape the transformer; all null where `model=pretrained`."""

TRAINING_AXES = (
    "optimizer",
    "schedule",
    "batch_schedule",
    "stabilizer",
    "precision",
    "parallelism",
)
"""Axes of every stage that trains (T in DESIGN): set at the root, replaceable per stage."""


def contract(axis: str) -> type[Method]:
    """The contract class of a built-in axis, imported on demand."""
    import importlib

    module = importlib.import_module(f"harness.axes.{axis}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
        and value.abstract
        and value.__dict__.get("axis") == axis
    ]
    assert len(found) == 1, f"harness.axes.{axis} must define exactly one contract, found {found}"
    return found[0]
