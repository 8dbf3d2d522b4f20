"""The page: one HTML file without network or server, in which every number opens its records."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.plan.table8 import planned
from harness.report import levels, ratings, scaling
from harness.report.aggregates import Aggregates
from harness.report.claims import Checked, sentence
from harness.report.drawing import Figure
from harness.report.frames import Results, metric_name
from harness.report.overall import TITLE
from harness.report.overall import as_text as overall_text
from harness.report.published import Beside
from harness.report.records import Record, flatten
from harness.report.samples import shown_samples
from harness.report.table import Column, Table, TableCell, differs, heading, sign
from harness.report.writers import arrow, as_html, number, why_missing

ASSETS = Path(__file__).parent / "assets"
PLANNED = "Planned for LLaMA 7B to 65B"
"""Heading of the compute table by formula."""
HIDDEN_FACTS = ("loss_curve",)
"""Facts that a figure shows better than a list."""


def page(
    table: Table,
    results: Results,
    *,
    claims: Sequence[Checked] = (),
    figures: Sequence[Figure] = (),
    beside: Sequence[Beside] | None = None,
    over_tasks: Aggregates | None = None,
    law: scaling.Fitted | None = None,
    samples: bool = True,
) -> str:
    """The report as one HTML file; the same records give the same bytes."""
    records = results.all_records()
    question = str(records[-1].experiment.get("question") or "") or table.title
    details = [detail_data(record) for record in records]
    parts = {
        "title": html.escape(question),
        "name": html.escape(results.name),
        "facts": "".join(f"<li>{fact}</li>" for fact in head_facts(table, results, claims)),
        "answers": "".join(f"<p>{html.escape(sentence(claim))}</p>" for claim in claims if claim.answers),
        "css": asset("page.css"),
        "js": asset("page.js"),
        "table": as_html(table),
        "notes": notes(table),
        "claims": claims_section(claims),
        "figures": figures_section(figures),
        "law": "" if law is None else texts_section(scaling.TITLE, *scaling.as_text(law)),
        "ratings": ratings_section(results),
        "published": published_section(beside, table) if beside is not None else "",
        "levels": levels_section(results, table),
        "overall": ""
        if over_tasks is None
        else texts_section(TITLE, *overall_text(over_tasks, table, results)),
        "planned": texts_section(PLANNED, *planned()) if table.layout.planned else "",
        "footer": footer(records),
        # No text of a record can end the script element or open another.
        "data": as_text(page_data(table, results)).replace("<", "\\u003c"),
        "details": packed(shared_parts(details)),
        "samples": packed(shown_samples(records) if samples else {}),
    }
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], asset("page.html"))


def as_text(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def packed(data: Any) -> str:
    """What nobody sees before a click, compressed; the same data give the same text."""
    return base64.b64encode(gzip.compress(as_text(data).encode(), mtime=0)).decode()


def asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def head_facts(table: Table, results: Results, claims: Sequence[Checked]) -> list[str]:
    """The line under the title."""
    records = results.all_records()
    bad = Counter(r.status for r in records if r.status != "ok")
    facts = [
        f"<b>{len(results.records)}</b> configurations",
        f"<b>{len(results.seeds)}</b> seed{'s' * (len(results.seeds) > 1)}",
        f"<b>{len(records)}</b> records",
        *(f"<b>{n}</b> {html.escape(status)}" for status, n in bad.items()),
    ]
    if table.baseline:
        at = " · ".join(table.layout.text(v) for v in table.baseline.values())
        facts.append(f"baseline <b>{html.escape(at)}</b>")
    if claims:
        said = Counter(str(claim.verdict) for claim in claims)
        order = (("confirmed", "good"), ("refuted", "bad"), ("undecided", "open"))
        counts = ", ".join(f'<b class="{c}">{said[v]} {v}</b>' for v, c in order if said[v])
        facts.append(f'<a href="#claims">claims</a> {counts}')
    return facts


def notes(table: Table) -> str:
    """Caption and footnotes."""
    text = "".join(f"<p>{html.escape(line)}</p>" for line in table.caption)
    if table.baseline:
        text += "<p>◆ the baseline. Hover for n, interval and p; click a number for its records.</p>"
    if table.footnotes:
        text += "<ol>" + "".join(f"<li>{html.escape(note)}</li>" for note in table.footnotes) + "</ol>"
    return text


def claims_section(claims: Sequence[Checked]) -> str:
    """What the literature says, with the verdict and the interval."""
    if not claims:
        return ""
    items = []
    for claim in claims:
        said = f"<p>{html.escape(claim.finding)}</p>" if claim.finding else ""
        source = f" · {html.escape(claim.source)}" if claim.source else ""
        items.append(
            f'<div class="claim"><span class="verdict {claim.verdict}">{claim.verdict}</span>'
            f"<div>{said}<code>{html.escape(claim.text)}</code>"
            f"<small>{html.escape(claim.reason)}{source}</small></div>{interval_strip(claim)}</div>"
        )
    return f'<section id="claims"><h2>Claims</h2><div class="claims">{"".join(items)}</div></section>'


def interval_strip(claim: Checked) -> str:
    """The interval of a claim's difference against the limit it names."""
    if claim.difference is None:
        return "<span></span>"
    low = claim.difference if claim.low is None else claim.low
    high = claim.difference if claim.high is None else claim.high
    first, last = claim.bounds
    ends = (min(low, first, 0.0), max(high, last, 0.0))
    span = (ends[1] - ends[0]) or 1.0

    def x(value: float) -> float:
        return round(10 + 200 * (value - ends[0]) / span, 1)

    width = round(x(last) - x(first), 1)
    tolerance = f'<rect x="{x(first)}" y="4" width="{width}" height="20" fill="var(--hair)"/>'
    label = claim.number
    limits = "".join(
        f'<line x1="{x(at)}" x2="{x(at)}" y1="3" y2="25" stroke="var(--ink)" stroke-dasharray="2 2"/>'
        for at in dict.fromkeys(claim.bounds)
    )
    return (
        f'<svg viewBox="0 0 220 40" role="img" aria-label="difference {html.escape(label)}">{tolerance}'
        f"{limits}"
        f'<line x1="{x(low)}" x2="{x(high)}" y1="14" y2="14" stroke="var(--accent)" stroke-width="2.5"/>'
        f'<circle cx="{x(claim.difference)}" cy="14" r="4" fill="var(--accent)"/>'
        '<text x="110" y="38" text-anchor="middle" font-size="11" fill="var(--soft)">'
        f"{html.escape(label)}</text></svg>"
    )


def figures_section(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    items = "".join(
        f"<figure{' class=wide' if f.wide else ''}><div class=plot>{f.svg}</div>"
        f"<figcaption><b>{html.escape(f.title)}</b> {html.escape(f.caption)}</figcaption></figure>"
        for f in figures
    )
    return f'<section><h2>Views</h2><div class="figures">{items}</div></section>'


def published_section(beside: Sequence[Beside], table: Table) -> str:
    """Published values beside ours, line by line."""
    source = html.escape(str(table.layout.published.get("source", "")))
    rows = []
    for b in beside:
        place = html.escape(" · ".join(table.layout.text(v) for v in b.where.values()))
        ours = "-" if b.ours is None else f"{b.ours.mean:.4g}"
        answer = "yes" if b.same else "no: " + html.escape("; ".join(b.differs))
        rows.append(
            f"<tr><td>{place}</td><td>{html.escape(b.at)}</td><td>{html.escape(b.metric)}</td>"
            f'<td class="n">{ours}</td><td class="n">{b.published:.4g}</td>'
            f'<td class="wrap">{answer}</td></tr>'
        )
    empty = "<tr><td>No cell stands at the place of a published value.</td></tr>"
    names = ("here", "there", "metric", "ours", "published", "same setting?")
    heads = "".join(f"<th>{name}</th>" for name in names)
    return (
        f"<section><h2>Beside the published values</h2><p>{source}</p><div class='scroll short'>"
        f"<table class='list still'><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(rows) or empty}</tbody></table></div></section>"
    )


def ratings_section(results: Results) -> str:
    """Elo of every configuration that was judged."""
    found = ratings.as_text(ratings.ratings(results, ratings.win_rate_samples(results)))
    return "" if found is None else texts_section(ratings.TITLE, *found)


def levels_section(results: Results, table: Table) -> str:
    """What each level sets, where its name does not say it."""
    found = levels.as_text(results, table.layout)
    return "" if found is None else texts_section(levels.TITLE, *found)


def texts_section(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """A table of text with its notes."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(v)}</td>" for v in row) + "</tr>" for row in rows)
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    return (
        f"<section><h2>{html.escape(title)}</h2><div class='scroll short'><table class='list still'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<div class='notes'>{said}</div></section>"
    )


def footer(records: Sequence[Record]) -> str:
    """Versions and the command that rebuilds the page."""
    provenance = records[-1].data.get("provenance", {})
    versions = {**(provenance.get("versions") or {}), "python": provenance.get("python", "")}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    name = str(records[-1].data.get("sweep") or records[-1].experiment.get("name"))
    return (
        f"<p>Rebuild with <code>harness report {html.escape(shlex.quote(name))}</code>. "
        f"harness {html.escape(str(provenance.get('harness', '')))}; {html.escape(shown)}.</p>"
    )


def page_data(table: Table, results: Results) -> dict[str, Any]:
    """What the script draws before anything is opened."""
    records = results.all_records()
    index = {record.cell: i for i, record in enumerate(records)}
    specs = list(dict.fromkeys(c.spec for c in table.columns))
    cells: list[dict[str, Any]] = []
    rows = []
    for row, line in zip(table.rows, table.cells, strict=True):
        places = []
        for column, cell in zip(table.columns, line, strict=True):
            places.append(len(cells))
            cells.append(cell_data(cell, column, specs.index(column.spec), index))
        rows.append({"levels": list(row.values()), "cells": places})
    return {
        "factors": results.factors,
        "text": {name: table.layout.text(name) for name in (*results.factors, *table.layout.labels)},
        "rowFactors": list(table.rows[0]),
        "columnFactors": list(table.columns[0].where),
        "group": list(table.rows[0]).index(table.layout.group) if table.layout.group in table.rows[0] else -1,
        "baseline": table.baseline,
        "metrics": [metric_data(next(c for c in table.columns if c.spec == spec), table) for spec in specs],
        "columns": [{"levels": list(c.where.values()), "metric": specs.index(c.spec)} for c in table.columns],
        "rows": rows,
        "cells": cells,
        "footnotes": table.footnotes,
        "records": [record_data(record, i) for i, record in enumerate(records)],
    }


def metric_data(column: Column, table: Table) -> dict[str, Any]:
    better = column.higher_is_better
    return {
        "name": column.info.name,
        "label": heading(column),
        "unit": column.unit,
        "scale": column.spec.scale,
        "arrow": arrow(column, table).replace(" ", "\u00a0"),
        "better": None if better is None else "higher" if better else "lower",
    }


def cell_data(cell: TableCell, column: Column, metric: int, index: Mapping[str, int]) -> dict[str, Any]:
    """One number with what hovering and opening it show; raw, and scaled by the script as the table."""
    data: dict[str, Any] = {
        "where": cell.where,
        "metric": metric,
        "verdict": cell.verdict,
        "mark": sign(cell),
        "rank": cell.rank,
        "notes": cell.notes,
        "missing": cell.missing,
        "records": [index[c] for c in cell.cells if c in index],
    }
    if (found := cell.estimate) is None or cell.measured is None:
        return {**data, "why": why_missing(cell)}
    data |= {
        "value": cell.value,
        "spread": cell.spread,
        "mean": number(found.mean),
        "low": number(found.low),
        "high": number(found.high),
        "sd": number(found.sd),
        "basis": found.basis,
        "seeds": found.num_seeds,
        "items": found.num_items,
        "bySeed": {str(seed): number(value) for seed, value in cell.measured.values.items()},
    }
    if c := cell.comparison:
        data |= {
            "paired": differs(cell, column),
            "difference": number(c.difference),
            "dlow": number(c.low),
            "dhigh": number(c.high),
            "p": number(c.p),
            "family": c.family,
            "test": c.test,
            "about": c.about,
            "detectable": number(c.detectable),
            "reason": c.reason,
        }
    return data


def record_data(record: Record, index: int) -> dict[str, Any]:
    """A record as lists show it."""
    stages = record.data.get("stages", [])
    return {
        "index": index,
        "id": record.cell,
        "levels": record.levels,
        "seed": record.seed,
        "status": record.status,
        "reason": record.reason,
        "run": sum(not s.get("reused") for s in stages),
        "seconds": round(sum(s.get("seconds") or 0 for s in stages if not s.get("reused")), 1),
        "metrics": {metric_name(m): finite(m.get("value")) for m in record.data["metrics"]},
    }


def detail_data(record: Record) -> dict[str, Any]:
    """The rest of a record, as its panel shows it."""
    source = record.data.get("provenance", {})
    facts = {
        path: compact(v)
        for path, v in flatten(record.data.get("facts", {}))
        if path.rpartition(".")[2] not in HIDDEN_FACTS
    }
    effects = {f"effect.{path}": compact(v) for path, v in flatten(record.data.get("effects", {}))}
    own = ("started", "finished", "command")
    return {
        "overrides": list(record.data.get("overrides", [])),
        "command": reproduce_command(record),
        "config": dict(flatten(record.data["config"])),
        "provenance": {path: str(v) for path, v in flatten(source) if path not in own},
        "started": source.get("started", ""),
        "finished": source.get("finished", ""),
        "stages": [
            [
                s["stage"] + (f" {s['part']}" if s.get("part") else ""),
                str(s.get("key", ""))[:16],
                "reused" if s.get("reused") else f"{s.get('seconds') or 0:.1f} s, seed {s.get('seed')}",
            ]
            for s in record.data.get("stages", [])
        ],
        "facts": {k: v for k, v in {**facts, **effects}.items() if v not in ({}, None)},
    }


def shared_parts(details: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The records' details, their configs as differences to the common one, equal provenance written once."""
    common = most_common([d["config"] for d in details])
    provenances: dict[str, int] = {}
    records = []
    for d in details:
        config = d["config"]
        place = provenances.setdefault(as_text(d["provenance"]), len(provenances))
        records.append(
            d
            | {
                "config": {k: v for k, v in config.items() if k not in common or common[k] != v},
                "without": [k for k in common if k not in config],
                "provenance": place,
            }
        )
    return {"config": common, "provenance": [json.loads(text) for text in provenances], "records": records}


def reproduce_command(record: Record) -> str:
    """The command that makes this cell again; its own overrides, quoted for a shell."""
    return " ".join(["harness run", *(shlex.quote(o) for o in record.data.get("overrides", []))])


def compact(value: Any) -> Any:
    """A fact short enough to read."""
    if isinstance(value, float):
        return finite(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= 300 else text[:300] + "..."


def finite(value: Any) -> Any:
    return number(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def most_common(flats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each config key that most records have, its most frequent value."""
    values: dict[str, Counter[str]] = {}
    for flat in flats:
        for key, value in flat.items():
            values.setdefault(key, Counter())[json.dumps(value, default=str)] += 1
    common = {}
    for key, counts in values.items():
        if 2 * sum(counts.values()) > len(flats):
            common[key] = json.loads(counts.most_common(1)[0][0])
    return common
