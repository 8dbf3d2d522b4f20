"""What a sweep's layout asks for, held against what its cells will have, before anything runs."""

from __future__ import annotations

from harness.errors import UnknownNameError
from harness.plan.intentions import known_levels, unmeasured
from harness.plan.plan import Plan


def check_layout(made: Plan) -> None:
    """The layout that an experiment names, and all that it asks for, must exist before anything runs.

    A column that no chosen evaluator fills becomes a note of the plan.
    Raises: UnknownNameError, ConfigError
    """
    from harness.report.layout import load_layout
    from harness.report.record import label

    layout = load_layout(made.experiment.report)
    where = f"report, table '{layout.name}'"
    known = known_levels([made.experiment], made.factors)
    for row in made.experiment.cells:
        known |= {name: set() for name in row if name not in known}
    for factor in (*layout.rows, *layout.columns, *layout.where, *layout.baseline, layout.group):
        if factor and factor not in known:
            raise UnknownNameError(what=f"factor (in {where})", name=str(factor), known=known)
    for factor, levels in (*layout.where.items(), *layout.baseline.items()):
        for level in map(label, levels if isinstance(levels, list) else [levels]):
            if known[factor] and level not in known[factor]:
                what = f"level of factor {factor} (in {where})"
                raise UnknownNameError(what=what, name=level, known=known[factor])
    asked = [column.metric for column in layout.metrics if not column.optional]
    cells = [cell.cell for cell in made.first.cells] if asked else []
    made.notes += [
        f"{where}: no chosen evaluator measures {metric}, so there will be no such table; choose one that "
        f"does, or another layout when it is made, `harness report {made.name} --table FILE`"
        for metric in unmeasured(asked, cells, where=where)
    ]
