"""The page: what it holds, and what a person does with it, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import simulate

from harness.errors import UnknownNameError
from harness.report.making import report
from harness.report.samples import readable

browser = pytest.importorskip("browser", reason="the browser's protocol needs aiohttp")
needs_chromium = pytest.mark.skipif(browser.executable() is None, reason="no Chromium on this machine")

CLAIMS = [
    {
        "says": "recall.acc[quantizer=8 bit] = recall.acc[quantizer=16 bit] +- 0.25",
        "finding": "8 bit is close to 16 bit.",
        "source": "arXiv:2303.18223",
    },
    "bits_per_byte[alignment=dpo] < bits_per_byte[alignment=none] - 1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a failed cell and claims."""
    root = simulate.experiment(tmp_path_factory.mktemp("store"), items=40, claims=CLAIMS)
    outcome = {"status": "oom", "reason": "peak 3.1 GiB of 2 GiB", "stage": "instruct", "step": None}
    for i, path in enumerate(sorted(root.glob("records/demo/*/record.json"))):
        levels = json.loads(path.read_text())["levels"]
        if levels == {"peft": "full", "alignment": "dpo", "quantizer": "4 bit"}:
            simulate.edit(root, "demo", i, outcome=outcome, metrics=[])
    return report("demo", store=root, out=tmp_path_factory.mktemp("report"), quiet=True)


def test_figures_are_written_as_svg_and_as_asked(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path / "s", tasks=(), factors={"peft": ["full", "lora"]})
    made = [
        report("demo", store=root, out=tmp_path / out, formats=("md",), images=("png", "pdf"), quiet=True)
        for out in ("once", "again")
    ]
    starts = {".svg": b"<svg", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    files = sorted((made[0] / "figures").iterdir())
    assert {file.suffix for file in files} == set(starts)
    for file in files:
        assert file.read_bytes().startswith(starts[file.suffix]), file.name
        assert file.read_bytes() == (made[1] / "figures" / file.name).read_bytes(), file.name
    with pytest.raises(UnknownNameError, match="No figure format is called 'gif'"):
        report("demo", store=root, out=tmp_path / "out", images=("gif",), quiet=True)


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ("[[-2.5, false], [-0.25, true]]", "choice 1  (log-likelihoods)\n  0   -2.50\n> 1   -0.25"),
        ("[[1, 2], 3]", "[[1, 2], 3]"),
        ("[[not JSON", "[[not JSON"),
        ("plain text", "plain text"),
    ],
)
def test_an_answer_by_likelihood_is_shown_as_the_choice_it_is(answer: str, shown: str) -> None:
    assert readable(answer) == shown


def data_of(folder: Path) -> dict[str, object]:
    text = (folder / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return dict(json.loads(found[1]))


def test_the_page_asks_for_nothing_outside_itself(folder: Path) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    outside = [u for u in re.findall(r'(?:src|href)="([^"#]+)', text) if not u.startswith("data:")]
    assert outside == []
    assert "@import" not in text
    assert "url(http" not in text


def test_the_same_records_give_the_same_page(folder: Path, tmp_path: Path) -> None:
    again = report("demo", store=folder / "records.json.gz", out=tmp_path, quiet=True)
    for name in ("index.html", "README.md", "table.tex", "table.csv", "table.json", "records.json.gz"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_text_from_records_cannot_break_the_page(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path / "store", tasks=(), seeds=(0,))
    bad = "</script><script>document.title='broken'</script><b>"
    outcome = {"status": "failed", "reason": bad, "stage": None, "step": None}
    simulate.edit(root, "demo", 0, outcome=outcome, metrics=[])
    out = report("demo", store=root, out=tmp_path / "out", quiet=True)
    assert "<script>document.title" not in (out / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tab(folder: Path) -> Iterator[object]:
    with browser.Browser() as found:
        found.go((folder / "index.html").as_uri())
        yield found


def column_of_first_rows(tab: object, column: int) -> list[float]:
    return list(
        tab.read(  # type: ignore[attr-defined]
            f"[...document.querySelectorAll('#grid tbody tr')].map(r => r.children[{column + 1}]"
            ".querySelector('.number')).map(n => n && +n.textContent)"
        )
    )


@pytest.mark.browser
@needs_chromium
class TestInChromium:
    """One tab, in the order a reader would go."""

    def test_it_loads_without_errors_and_shows_every_row(self, tab: browser.Browser) -> None:
        assert tab.errors == []
        assert tab.read("document.querySelectorAll('#grid tbody tr').length") == 4
        assert tab.read("document.querySelectorAll('#grid [data-cell]').length") == 72
        assert tab.read("document.querySelectorAll('figure svg').length") >= 5
        assert tab.read("[...document.querySelectorAll('.verdict')].map(v => v.textContent)") == [
            "confirmed",
            "refuted",
        ]

    def test_clicking_a_heading_sorts_by_it_best_first_then_worst_first(self, tab: browser.Browser) -> None:
        before = column_of_first_rows(tab, 1)
        tab.click('button[data-column="1"]')
        assert column_of_first_rows(tab, 1) == sorted(before, reverse=True)
        assert tab.read("document.querySelector('th[aria-sort]').getAttribute('aria-sort')") == "descending"
        tab.click('button[data-column="1"]')
        assert column_of_first_rows(tab, 1) == sorted(before)
        tab.click('button[data-column="1"]')
        assert column_of_first_rows(tab, 1) == before

    def test_filters_hide_rows_columns_and_metrics(self, tab: browser.Browser) -> None:
        chips = "[...document.querySelectorAll('.chip')]"
        tab.read(f"{chips}.find(c => c.textContent === 'full').click()")
        assert tab.read("document.querySelectorAll('#grid tbody tr').length") == 2
        tab.read(f"{chips}.find(c => c.textContent === '8 bit').click()")
        tab.read(f"{chips}.find(c => c.textContent === 'memory').click()")
        assert tab.read("document.querySelectorAll('#grid tbody tr:first-child td').length") == 10
        for text in ("full", "8 bit", "memory"):
            tab.read(f"{chips}.find(c => c.textContent === '{text}').click()")
        tab.click("#search")
        tab.type("lora dpo")
        assert tab.read("document.querySelectorAll('#grid tbody tr').length") == 1
        tab.read(
            "(s => { s.value = ''; s.dispatchEvent(new Event('input')); })(document.querySelector('#search'))"
        )
        assert tab.read("document.querySelectorAll('#grid tbody tr').length") == 4

    def test_hovering_shows_n_interval_and_p(self, tab: browser.Browser) -> None:
        tab.hover('[data-cell="8"]')
        text = tab.read("document.querySelector('#tip').innerText")
        assert tab.read("document.querySelector('#tip').classList.contains('on')")
        for word in ("3 seeds, 40 items", "95 % interval", "p, simultaneous t", "adjusted for", "Detectable"):
            assert word in text, text

    def test_an_empty_cell_says_why(self, tab: browser.Browser) -> None:
        assert "oom in instruct" in tab.read("document.querySelector('.why').textContent")

    def test_clicking_a_number_opens_its_records(self, tab: browser.Browser) -> None:
        tab.click('[data-cell="8"]')
        text = tab.read("document.querySelector('#panel').innerText")
        assert tab.read("document.querySelector('#panel').open")
        assert "null" not in text.split()
        for word in (
            "Reproduce",
            "harness run experiment=demo",
            "git.commit",
            "versions.torch",
            "hardware.cpu",
        ):
            assert word in text, word
        assert tab.read("location.hash") == "#cell=8"
        tab.read("[...document.querySelectorAll('.tabs button')][2].click()")
        assert "seed=2" in tab.read("document.querySelector('#panel pre').textContent")

    def test_samples_of_two_cells_stand_side_by_side(self, tab: browser.Browser) -> None:
        assert tab.read("document.querySelectorAll('.pair .sides').length") == 6
        first = "document.querySelector('.pair .sides > div:last-child h4').textContent"
        before = tab.read(first)
        tab.read(
            "(s => { s.selectedIndex = (s.selectedIndex + 7) % s.options.length;"
            "s.dispatchEvent(new Event('change')); })(document.querySelector('#other'))"
        )
        assert tab.read(first) != before
        tab.press("Escape")
        tab.click("#close") if tab.read("document.querySelector('#panel').open") else None
        assert tab.read("location.hash") == ""

    def test_a_footnote_on_a_whole_row_stands_at_its_name(self, tab: browser.Browser) -> None:
        tab.read(
            "D.rows[0].cells.forEach((i) => D.cells[i].notes.push(D.footnotes.length));"
            "D.footnotes.push('drifted'); drawGrid()"
        )
        row = "document.querySelector('#grid tbody tr')"
        assert tab.read(f"{row}.querySelector('th sup').title") == "drifted"
        assert tab.read(f"{row}.querySelectorAll('td sup').length") == 0
        tab.read("D.cells[D.rows[0].cells[0]].notes.pop(); drawGrid()")
        assert tab.read(f"{row}.querySelectorAll('th sup').length") == 0
        assert tab.read(f"{row}.querySelectorAll('td sup').length") > 1
        tab.read(
            "D.rows[0].cells.slice(1).forEach((i) => D.cells[i].notes.pop()); D.footnotes.pop(); drawGrid()"
        )

    def test_the_head_counts_the_claims(self, tab: browser.Browser) -> None:
        assert "claims 1 confirmed, 1 refuted" in tab.read("document.querySelector('.facts').innerText")

    def test_columns_regroup_by_metric(self, tab: browser.Browser) -> None:
        tab.click("#turn")
        spans = "[...document.querySelectorAll('#grid th.span')].map(t => t.innerText)"
        assert tab.read(spans)[0].startswith("bits per byte")
        tab.click("#turn")
        assert tab.read(spans) == ["16 bit", "8 bit", "4 bit"]

    def test_records_sort_and_open(self, tab: browser.Browser) -> None:
        assert tab.read("document.querySelectorAll('#records tbody tr').length") == 36
        tab.read("document.querySelectorAll('#records .sort')[3].click()")
        seeds = tab.read(
            "[...document.querySelectorAll('#records tbody tr')].map(r => +r.children[3].textContent)"
        )
        assert seeds == sorted(seeds)
        tab.read("document.querySelector('#records tbody tr').click()")
        assert "Metrics" in tab.read("document.querySelector('#panel').innerText")
        tab.click("#close")

    def test_dark_and_light_differ_and_the_button_switches(self, tab: browser.Browser) -> None:
        ground = "getComputedStyle(document.body).backgroundColor"
        light = tab.read(ground)
        tab.media(dark=True)
        assert tab.read(ground) != light
        tab.media(dark=False)
        tab.click("#theme")
        assert tab.read(ground) != light
        tab.click("#theme")
        assert tab.read(ground) == light

    def test_the_head_of_a_long_table_stays_in_sight(self, tab: browser.Browser) -> None:
        tab.read("document.querySelector('.scroll').style.maxHeight = '150px'")
        tab.read("document.querySelector('.scroll').scrollTop = 9999")
        inside = "document.querySelector('.scroll').getBoundingClientRect().top"
        assert tab.read("document.querySelector('.scroll').scrollTop") > 0
        assert (
            abs(tab.read(f"document.querySelector('#grid thead').getBoundingClientRect().top - {inside}")) < 4
        )
        tab.read("document.querySelector('.scroll').style.maxHeight = ''")

    def test_the_paired_view_shows_differences(self, tab: browser.Browser) -> None:
        tab.click("#paired")
        assert tab.read("document.querySelector('.is-baseline .number').textContent") == "-"
        assert " to " in tab.read("document.querySelector('#grid .spread').textContent")
        tab.click("#paired")
        assert tab.read("document.querySelector('#grid .spread').textContent").startswith("±")

    def test_any_two_metrics_can_be_set_against_each_other(self, tab: browser.Browser) -> None:
        assert tab.read("document.querySelectorAll('#scatter .point').length") > 3
        choose = (
            "(() => { const s = document.querySelector('#across'); s.selectedIndex = s.options.length - 1;"
        )
        tab.read(choose + "s.dispatchEvent(new Event('change')); })()")
        name = tab.read("document.querySelector('#across').selectedOptions[0].textContent")
        assert name in tab.read("document.querySelector('#scatter svg').textContent")
        assert ": " in tab.read("document.querySelector('#scatter .point title').textContent")

    def test_it_fits_a_phone(self, tab: browser.Browser) -> None:
        tab.resize(390, 844, mobile=True)
        assert tab.read("document.documentElement.scrollWidth") <= 390
        tab.click('[data-cell="8"]')
        assert tab.read("document.querySelector('#panel').getBoundingClientRect().width") <= 390
        tab.click("#close")
        tab.resize(1280, 900)

    def test_it_prints_without_its_tools(self, tab: browser.Browser, tmp_path: Path) -> None:
        tab.media(kind="print")
        assert tab.read("getComputedStyle(document.querySelector('#tools')).display") == "none"
        printed = "[...document.querySelectorAll('#paper table')]"
        assert tab.read(f"{printed}.map(t => t.querySelector('.span').innerText)") == [
            "16 bit",
            "8 bit",
            "4 bit",
        ]
        assert tab.read(f"{printed}.map(t => t.querySelectorAll('.cell').length)") == [24, 24, 24]
        tab.resize(1017, 719)
        assert tab.read(f"Math.max(...{printed}.map(t => t.getBoundingClientRect().right))") <= 1017
        tab.resize(1280, 900)
        tab.media()
        tab.pdf(tmp_path / "page.pdf")
        assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")

    def test_a_link_opens_its_cell(self, tab: browser.Browser, folder: Path) -> None:
        tab.go("about:blank")
        tab.go((folder / "index.html").as_uri() + "#cell=8")
        assert tab.read("document.querySelector('#panel').open")

    def test_nothing_went_wrong_on_the_way(self, tab: browser.Browser) -> None:
        assert tab.errors == []


LABELS = (
    "constructor",
    "__proto__",
    "",
    "two\nlines",
    "q" * 200,
    "<b>x</b>",
    *(f"level {i}" for i in range(30)),
)


@pytest.mark.browser
@needs_chromium
def test_labels_of_any_kind_are_shown_and_break_no_line(tmp_path: Path) -> None:
    levels = {text: {"optimizer.x": i} for i, text in enumerate(LABELS)}
    root = simulate.experiment(tmp_path / "s", factors={"opt": levels}, seeds=(0,), tasks=(), items=12)
    out = report("demo", store=root, out=tmp_path / "o", formats=("html",), quiet=True)
    with browser.Browser(width=390, height=800) as tab:
        tab.go((out / "index.html").as_uri())
        shown = tab.read("[...document.querySelectorAll('#grid tbody th')].map(h => h.textContent)")
        assert shown == [*LABELS[:2], '""', '"two\\nlines"', *LABELS[4:]]
        assert tab.read("document.documentElement.scrollWidth") == 390
        tab.read(f"document.querySelector('[data-cell=\"{tab.read('D.cells.length') - 1}\"]').click()")
        bold = "[...document.querySelectorAll('#panel .forest .me')].map(t => t.textContent)"
        assert tab.read(bold)[0] == LABELS[-1], "the row that was clicked is among those drawn"
        assert tab.read("document.querySelector('#panel').scrollWidth") <= 390
        assert tab.errors == []
