"""The page: one HTML file without network or server, in which every number opens its records."""

from __future__ import annotations

import base64
import gzip
import html
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.plan.table8 import planned
from harness.report import levels, ratings, scaling
from harness.report.aggregates import Aggregates
from harness.report.claims import Checked, sentence
from harness.report.drawing import Figure
from harness.report.frames import Results
from harness.report.overall import TITLE
from harness.report.overall import as_text as overall_text
from harness.report.page_data import as_text, detail_data, page_data, shared_parts
from harness.report.published import Beside
from harness.report.record import Record
from harness.report.samples import shown_samples
from harness.report.table import Table
from harness.report.writers import as_html

ASSETS = Path(__file__).parent / "assets"
PLANNED = "Planned for LLaMA 7B to 65B"
"""Heading of the compute table by formula."""


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
        "law": "" if law is None else texts_section(scaling.TITLE, *scaling.as_text(law, results)),
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
        "samples": packed(shown_samples(records, results.shown) if samples else {}),
    }
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: parts[found[1]], asset("page.html"))


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
        *(
            f"<b>{number}</b> {what}{'s' * (number != 1)}"
            for number, what in (
                (len(results.records), "configuration"),
                (len(results.seeds), "seed"),
                (len(records), "record"),
            )
        ),
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
    text = "".join(f"<p>{with_code(line)}</p>" for line in table.caption)
    if table.baseline:
        text += "<p>◆ the baseline. Hover for n, interval and p; click a number for its records.</p>"
    if table.footnotes:
        text += "<ol>" + "".join(f"<li>{with_code(note)}</li>" for note in table.footnotes) + "</ol>"
    return text


def with_code(text: str) -> str:
    """A sentence, what stands between backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


def claims_section(claims: Sequence[Checked]) -> str:
    """What the literature says, with the verdict and the interval."""
    if not claims:
        return ""
    items = []
    for claim in claims:
        said = f"<p>{html.escape(claim.finding)}</p>" if claim.finding else ""
        source = f" · {html.escape(claim.source)}" if claim.source else ""
        reason = html.escape("; ".join(filter(None, (claim.rates, claim.reason))))
        items.append(
            f'<div class="claim"><span class="verdict {claim.verdict}">{claim.verdict}</span>'
            f"<div>{said}<code>{html.escape(claim.text)}</code>"
            f"<small>{reason}{source}</small></div>{interval_strip(claim)}</div>"
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
        ours, theirs = b.numbers
        answer = "yes" if b.same else "no: " + html.escape("; ".join(b.differs))
        rows.append(
            f"<tr><td>{place}</td><td>{html.escape(b.at)}</td><td>{html.escape(b.name)}</td>"
            f'<td class="n">{ours}</td><td class="n">{theirs}</td>'
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
