"""How figures are drawn: SVG with live text whose ink follows the page, and looks that tell curves apart."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE = "#1d1f23", "#8d929b", "#e4e4e0"
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Colours that stay apart without red or green cones.

Paper: Okabe and Ito 2008, Color Universal Design; without black and yellow, which are ink and too light
"""
GOOD, BAD = PALETTE[2], PALETTE[5]
DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
"""Lengths without a common factor with the colours': thirty curves differ before one look comes again."""
MAX_CURVES = len(PALETTE) * len(DASHES)
THEMED = {INK: "currentColor", SOFT: "var(--faint)", LINE: "var(--line)"}
IMAGES: Mapping[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
"""Formats beside SVG, with the metadata to leave out so that the same records give the same bytes."""
WIDE, HALF = 10.6, 5.1
"""Inches; a wide figure spans the page."""
LONGEST = 49
"""Characters of a label in a figure."""
LONGEST_TITLE = 25
"""Characters of the title of a panel, which may stand beside two others."""
LEGEND_ROW = 0.2
"""Inches of one line of a legend."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A finished figure."""

    name: str
    """File name without suffix."""
    title: str
    caption: str
    svg: str
    """For the page: no size, ink in the page's colours."""
    file: str
    """For a file: black on white."""
    render: Callable[[str], bytes]
    """The same in a format of IMAGES."""
    wide: bool = False


def look(place: int) -> dict[str, Any]:
    """Colour, dashes and marker of the configuration at this place: no two of the first thirty are equal."""
    return {
        "color": PALETTE[place % len(PALETTE)],
        "linestyle": DASHES[place % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }


def short(label: str, most: int = LONGEST) -> str:
    """A label that leaves room for what it names: of a long one, both ends."""
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[:half]}…{label[-half:]}"


def legend(canvas: Any, labels: Mapping[str, Any], *, title: str = "") -> None:
    """A legend below all panels, where it covers no curve; `labels` maps texts to drawn artists."""
    columns = legend_columns(list(labels), canvas.get_figwidth())
    canvas.legend(
        list(labels.values()),
        list(map(short, labels)),
        loc="outside lower left",
        ncols=columns,
        title=title or None,
        fontsize=7,
        title_fontsize=8,
        handlelength=3.4,
    )


def legend_columns(labels: list[str], width: float) -> int:
    """How many labels stand side by side in so many inches."""
    longest = max((len(short(label)) for label in labels), default=1)
    return max(1, min(len(labels), int(width / (0.6 + 0.055 * longest))))


def legend_height(labels: list[str], width: float) -> float:
    """Inches that the legend takes."""
    return LEGEND_ROW * (-(-len(labels) // legend_columns(labels, width)) + 1) if labels else 0.0


def draw(
    name: str,
    title: str,
    caption: str,
    *,
    size: tuple[float, float],
    paint: Callable[[Any], None],
    wide: bool = False,
    hover: Mapping[str, str] | None = None,
) -> Figure:
    """Run `paint` on a new matplotlib figure; the same input gives the same bytes.

    `hover` is what the group of an id (`set_gid`) shows under the pointer.
    """
    import warnings

    import matplotlib
    from matplotlib.figure import Figure as Canvas

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
        "font.size": 9,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "text.color": INK,
        # A label is text, whatever it holds: `$x_1$` is no formula, and half of one no error.
        "text.parse_math": False,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }

    def save(**options: Any) -> bytes:
        with matplotlib.rc_context(style), warnings.catch_warnings():
            # The text of an SVG is live: the reader's fonts have what those of this machine lack.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            canvas = Canvas(figsize=size, layout="constrained")
            paint(canvas)
            out = io.BytesIO()
            canvas.savefig(out, **options)
            return out.getvalue()

    text = save(format="svg", transparent=True, metadata={"Date": None, "Creator": None}).decode()
    text = text[text.index("<svg") :]
    if hover:
        text = re.sub(r'<g id="([^"]+)">', lambda found: found[0] + tooltip(hover.get(found[1])), text)
    file = text.replace(">", "><rect width='100%' height='100%' fill='white'/>", 1)
    return Figure(
        name=re.sub(r"[^\w.@=+-]", "_", name),  # of a stage or metric, which may be called anything
        title=title,
        caption=caption,
        svg=for_page(text, name),
        file=file,
        render=lambda kind: save(format=kind, dpi=200, metadata=IMAGES[kind]),
        wide=wide,
    )


def tooltip(said: str | None) -> str:
    return "" if said is None else f"<title>{html.escape(said)}</title>"


def for_page(svg: str, name: str) -> str:
    """The SVG inline in HTML: scalable, its ids its own, its ink the page's."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{name}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    for colour, themed in THEMED.items():
        svg = svg.replace(colour, themed)
    return re.sub(r"\n\s*", "\n", svg)


def panels(canvas: Any, n: int, per_row: int) -> Iterator[Axes]:
    """A grid of axes with empty places left out."""
    rows = -(-n // per_row)
    grid = canvas.subplots(rows, min(n, per_row), squeeze=False)
    for i, axes in enumerate(grid.flat):
        if i < n:
            yield axes
        else:
            axes.set_visible(False)


def logarithmic(axes: Axes, base: float = 10) -> None:
    """A logarithmic abscissa with plain numbers at its ticks: 128, 1024, 16384, 20k, 3M."""
    from matplotlib.ticker import EngFormatter, LogFormatter

    short = EngFormatter(sep="")

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            shown = super().__call__(x, pos)
            return shown and (f"{x:g}" if 1e-3 <= x < 1e4 else min(short(x), f"{x:g}", key=len))

    axes.set_xscale("log", base=base)
    axes.xaxis.set_major_formatter(Plain(base))
    axes.xaxis.set_minor_formatter(Plain(base))


def title(axes: Any, text: str, aside: str) -> None:
    """A panel's title with a remark at its right end."""
    axes.set_title(short(text, LONGEST_TITLE))
    axes.set_title(aside, loc="right", color=SOFT, fontsize=8, fontweight="normal")
