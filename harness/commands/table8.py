"""`harness plan --table8`: the survey's compute table by the planner's formulas, beside what was printed."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from harness.plan.table8 import table8

TABLE8 = (
    "Full tuning on A800 (ZeRO-3, bf16, recomputation); LoRA batch without and with recomputation",
    "GPUs for inference: A800 16 bit, 3090 16 bit, 3090 8 bit",
)


def print_table8() -> None:
    """The survey's compute table by the planner's formulas, beside what was printed."""
    console = Console()
    tuning, inference = (Table(box=None, padding=(0, 2, 0, 0), title=title) for title in TABLE8)
    for name in ("LLaMA", "GPUs", "GiB each", "fits", "on half", "fits", "LoRA batch", "printed"):
        tuning.add_column(name, justify="left" if name == "LLaMA" else "right")
    for name in ("LLaMA", "least", "power of 2", "printed"):
        inference.add_column(name, justify="left" if name == "LLaMA" else "right")
    rows = table8()
    for row in rows:
        whole, half = row["full_gib"].values()
        tuning.add_row(
            row["model"],
            str(row["full_gpus"]),
            f"{whole:.1f}",
            "yes" if row["full_fits"] else "no",
            f"{half:.1f}",
            "yes" if row["half_fits"] else "no",
            f"{row['lora_batch'][False]} to {row['lora_batch'][True]}",
            str(row["lora_printed"]),
        )
        counts = ("inference_exact", "inference_power_of_two", "inference_printed")
        inference.add_row(row["model"], *("/".join(str(n) for n in row[name]) for name in counts))
    console.print(tuning)
    console.print(inference)
    for row in rows:
        for note in row["notes"]:
            console.print(f"{row['model']}: {note}", highlight=False)
