"""The charts of a run report as inline SVG: refusals, tokens per site, loss, evaluation.

Drawn with matplotlib's SVG backend and no pyplot. The same facts give the same bytes: fixed hash salt, no date, no
version. Text stays text, so it can be searched and takes the page's font. Lengths are points (1/72 inch); a chart is
drawn WIDE for desks and print or NARROW for phones, and as high as its rows need. Colours are those of Okabe and Ito
(2008), told apart by readers with any colour vision; from the ninth series on a hatch or dash is added.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flows.report.facts import Refusal, RunFacts
from flows.report.words import count, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 760.0, 360.0
INK, SOFT, GRID = "#1f2933", "#5b6673", "#dfe4ea"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#7F6000", "#4B4B4B")
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "causeway",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 10.5,
    "axes.edgecolor": GRID,
    "axes.unicode_minus": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "hatch.color": "white",
    "hatch.linewidth": 1.2,
}
_TOP_REASONS = 8


@contextmanager
def style() -> Iterator[None]:
    """Apply the report's matplotlib settings inside the block only."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcParams.update(_RC)
        # Text is not drawn from matplotlib's font, so that it lacks a name's characters does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def figure(width: float, height: float) -> Figure:
    """Return an empty figure of width x height points."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), facecolor="none")


def extent(fig: Figure) -> tuple[float, float]:
    """Return a figure's width and height in points."""
    return round(fig.get_figwidth() * 72, 2), round(fig.get_figheight() * 72, 2)


def axes(fig: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Return axes at a place given in points, without frame, grid behind."""
    wide, high = extent(fig)
    ax = fig.add_axes((left / wide, bottom / high, width / wide, height / high), facecolor="none")
    ax.spines[:].set_visible(False)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, pad=5)
    return ax


def svg(fig: Figure, name: str, title: str) -> str:
    """Return the figure as an SVG element to stand in HTML: ids carry `name`, `title` is what screen readers say."""
    from html import escape

    from matplotlib.backends.backend_svg import FigureCanvasSVG

    stream = io.StringIO()
    FigureCanvasSVG(fig).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # Only inside tags, so that what a label says is left alone.
    wide, high = extent(fig)
    name_of_size = "wide" if wide == WIDE else "narrow"
    text = re.sub(r"<[^>]*>", lambda tag: _tidy(tag[0], f"{name}-{name_of_size}"), text)
    text = re.sub(r"<g [^>]*/>", "", text)
    opening = f'<svg class="{name_of_size}" viewBox="0 0 {wide:g} {high:g}" role="img" aria-label="{escape(title)}">'
    return opening + re.sub(r"\s*\n\s*", "\n", text[text.index(">") + 1 :]).strip()


def _tidy(tag: str, name: str) -> str:
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)  # the page's style sheet says it once
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)


def clip(name: str, size: int = 30) -> str:
    """Return a name, its middle left out when it is longer than `size` characters."""
    return name if len(name) <= size else f"{name[: size // 2 - 1]}…{name[-(size // 2) :]}"


def text_width(text: str, size: float = 10.5) -> float:
    """Return about how wide a text is in points; wide East Asian characters count double."""
    return size * sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.56 for c in text)


def margin(names: Sequence[str], least: float = 60) -> float:
    """Return the left margin that the longest of these row labels needs."""
    return max([least, *(text_width(name) + 14 for name in names)])


def legend(fig: Figure, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Draw swatches with names in rows at the top of a figure."""
    from matplotlib.patches import Rectangle

    (wide, high), spots = extent(fig), _spots([name for name, _ in entries], extent(fig)[0])
    for (name, fill), (x, row) in zip(entries, spots, strict=True):
        y = high - 4 - 18 * row
        corner = (x / wide, (y - 10) / high)
        fig.add_artist(Rectangle(corner, 10 / wide, 10 / high, transform=fig.transFigure, linewidth=0, **fill))
        fig.text((x + 15) / wide, (y - 5) / high, name, va="center_baseline", fontsize=10.5)


def legend_height(names: Sequence[str], width: float) -> float:
    """Return the height that `legend` takes in a figure of this width."""
    return 18.0 * (_spots(names, width)[-1][1] + 1)


def _spots(names: Sequence[str], width: float) -> list[tuple[float, int]]:
    spots: list[tuple[float, int]] = []
    x, row = 0.0, 0
    for name in names:
        needed = text_width(name) + 18
        if x + needed > width and x > 0:
            x, row = 0.0, row + 1
        spots.append((x, row))
        x += needed + 14
    return spots


def look(index: int) -> dict[str, Any]:
    """Return the fill of bar series `index`."""
    return {"facecolor": PALETTE[index % 8], "hatch": (None, "///", "...", "xx")[index // 8 % 4]}


def refusals(facts: RunFacts, width: float = WIDE) -> str:
    """Bars: rows kept out by each reason, most first, grouped by data set."""
    rows: list[tuple[str, Refusal | None]] = []
    for data_set in facts.data_sets:
        reasons = sorted(data_set.refusals, key=lambda r: (-r.rows, r.rule))
        if reasons:
            rows.append((clip(data_set.name, 60 if width == WIDE else 40), None))
        rows.extend((clip(reason.rule, label_size(width)), reason) for reason in reasons[:_TOP_REASONS])
        if more := reasons[_TOP_REASONS:]:
            rows.append((f"{len(more)} more reasons", Refusal("", "", sum(r.rows for r in more), more[0].stage)))
    fills = (("set aside by the contract", look(0)), ("removed in curation", look(1)))
    stages = {"quarantine": look(0), "curation": look(1)}
    keys, body = legend_height([name for name, _ in fills], width), 20.0 * len(rows)
    with style():
        fig = figure(width, body + keys + 54)
        legend(fig, fills)
        left = margin([label for label, reason in rows if reason])
        ax = axes(fig, left, 42, width - left - 48, body)
        for at, (label, reason) in enumerate(rows):
            if reason is None:
                y = 42 + (len(rows) - at - 0.5) * 20
                fig.text(0, y / extent(fig)[1], label, fontweight="bold", va="center_baseline")
            else:
                ax.barh(at, reason.rows, 0.66, linewidth=0, **stages[reason.stage])
                value_label(ax, count(reason.rows), reason.rows, at)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_yticks([at for at, row in enumerate(rows) if row[1]], [label for label, reason in rows if reason])
        amount_axis(ax, "rows", width)
        return svg(fig, "refusals", "Rows kept out, by data set and reason")


def tokens_per_site(facts: RunFacts, width: float = WIDE) -> str:
    """Stacked bars: tokens placed at each site, by data set."""
    placed = {(p.site, p.data_set): p.tokens for p in facts.placements if p.tokens}
    sites = [s.name for s in facts.sites]
    sets = [d.name for d in facts.data_sets if any((s, d.name) in placed for s in sites)]
    labels = [clip(s, label_size(width)) for s in sites]
    fills = [(clip(name), look(i)) for i, name in enumerate(sets)]
    keys, left, body = legend_height([name for name, _ in fills], width), margin(labels), 30.0 * len(sites)
    with style():
        fig = figure(width, body + keys + 54)
        legend(fig, fills)
        ax = axes(fig, left, 42, width - left - 52, body)
        for at, site in enumerate(sites):
            start = 0
            for i, name in enumerate(sets):
                tokens = placed.get((site, name), 0)
                if tokens:
                    ax.barh(at, tokens, 0.62, left=start, edgecolor="white", linewidth=0.8, **look(i))
                start += tokens
            value_label(ax, short(start), start, at, "bold")
        ax.set_ylim(len(sites) - 0.5, -0.5)
        ax.set_yticks(range(len(sites)), labels)
        amount_axis(ax, "tokens placed", width)
        return svg(fig, "tokens", "Tokens placed at each site, by data set")


def evaluation(facts: RunFacts, width: float = WIDE) -> str:
    """Grouped bars: held-out bits per byte before, after and of a unigram model, by data set."""
    series = (
        ("before", "before training", "#A9B4C0"),
        ("after", "after training", PALETTE[0]),
        ("unigram", "unigram baseline", PALETTE[1]),
    )
    names = [clip(e.data_set, label_size(width)) for e in facts.evaluations]
    fills: list[tuple[str, dict[str, Any]]] = [(words, {"facecolor": colour}) for _, words, colour in series]
    keys, left, body = legend_height([words for words, _ in fills], width), margin(names), 52.0 * len(names)
    with style():
        fig = figure(width, body + keys + 54)
        legend(fig, fills)
        ax = axes(fig, left, 42, width - left - 42, body)
        for at, entry in enumerate(facts.evaluations):
            for i, (name, _, colour) in enumerate(series):
                value, y = float(getattr(entry, name)), at + (i - 1) * 0.27
                ax.barh(y, value, 0.235, color=colour, linewidth=0)
                value_label(ax, f"{value:.3f}", value, y, "bold" if name == "after" else "normal")
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_yticks(range(len(names)), names)
        ax.set_xlim(left=0)
        ax.grid(axis="x", color=GRID, linewidth=0.8)
        ax.set_xlabel("bits per byte, held out (less is better)", loc="left")
        return svg(fig, "evaluation", "Held-out bits per byte before, after and of a unigram model, by data set")


def label_size(width: float) -> int:
    """Return how many characters of a name a row label may show."""
    return 36 if width == WIDE else 18


def value_label(ax: Axes, text: str, value: float, y: float, weight: str = "normal") -> None:
    """Write a bar's value behind its end."""
    ax.annotate(text, (value, y), (4, 0), textcoords="offset points", va="center_baseline", fontweight=weight)


def amount_axis(ax: Axes, label: str, width: float) -> None:
    """Give the x axis of a bar chart whole, short numbers and a grid."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(6 if width == WIDE else 3, integer=True, min_n_ticks=1))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(int(value))))
    ax.set_xlim(left=0)
    ax.grid(axis="x", color=GRID, linewidth=0.8)
    ax.set_xlabel(label, loc="left")
