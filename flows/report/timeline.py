"""The charts of a run report that run over rounds and time: loss per site, and what each site did when."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from flows.report.charts import (
    GRID,
    INK,
    PALETTE,
    SOFT,
    WIDE,
    axes,
    clip,
    extent,
    figure,
    label_size,
    legend,
    margin,
    style,
    svg,
    text_width,
)
from flows.report.facts import RunFacts, Span
from flows.report.words import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "compute": ("compute", PALETTE[0]),
    "transfer": ("transfer", PALETTE[1]),
    "wait": ("wait", "#C3CBD4"),
}
_SHARED_CHART_SITES = 5
_MARKED_ROUNDS = 30
# 150 spans a row leave about 4 points each; with more, shares of time per bin read better than hair lines.
_DRAWN_SPANS = 150
_BINS = 100


def loss(facts: RunFacts, width: float = WIDE) -> str:
    """Lines: training loss per site and round; one panel for up to 5 sites, else one small panel a site."""
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for point in facts.losses:
        if math.isfinite(point.loss):
            series[point.site].append((point.round, point.loss))
    order = [s.name for s in facts.sites if s.name in series]
    order += sorted(set(series) - set(order))
    lines = {site: sorted(series[site]) for site in order}
    with style():
        fig = (_shared_loss if len(lines) <= _SHARED_CHART_SITES else _small_losses)(lines, width)
        return svg(fig, "loss", "Training loss per site and round")


def _shared_loss(lines: dict[str, list[tuple[int, float]]], width: float) -> Figure:
    labels = {site: f"{clip(site, label_size(width) - 4)}  {points[-1][1]:.2f}" for site, points in lines.items()}
    height, right = 300.0, max(text_width(label) for label in labels.values()) + 8
    body = height - 66
    fig = figure(width, height)
    ax = axes(fig, 36, 44, width - 36 - right, body)
    for i, points in enumerate(lines.values()):
        _line(ax, points, PALETTE[i])
    _loss_axes(ax, lines, 8 if width == WIDE else 5)
    fig.text(0, (height - 8) / height, "loss, nats per token", fontsize=10.5, color=SOFT, va="center_baseline")
    # Labels stand at the ends of their lines, pushed apart to 15 points where the ends meet.
    low, high = ax.get_ylim()
    y = -15.0
    for value, i, site in sorted((points[-1][1], i, site) for i, (site, points) in enumerate(lines.items())):
        y = max((value - low) / (high - low) * body, y + 15)
        at, left = (44 + y) / height, width - right + 2
        fig.text(left / width, at, "●", color=PALETTE[i], va="center_baseline", fontsize=8)
        fig.text((left + 11) / width, at, labels[site], color=INK, va="center_baseline", fontsize=10.5)
    ax.set_xlabel("round", loc="left")
    return fig


def _small_losses(lines: dict[str, list[tuple[int, float]]], width: float) -> Figure:
    columns = 2 if width != WIDE else 3 if len(lines) <= 9 else 4
    rows = -(-len(lines) // columns)
    wide, tall, gap, body = (width - 30) / columns, 128.0, 16.0, 88.0
    fig = figure(width, rows * tall + 66)
    height = extent(fig)[1]
    legend(fig, [("this site", {"facecolor": PALETTE[0]}), ("the other sites", {"facecolor": "#C9D0D8"})])
    # The grey lines only give the frame: 50 points of each are enough.
    others = [points[:: max(1, len(points) // 50)] for points in lines.values()]
    for at, (site, points) in enumerate(lines.items()):
        row, column = divmod(at, columns)
        ax = axes(fig, 30 + column * wide, height - 50 - row * tall - body, wide - gap, body)
        for other in others:
            ax.plot(*zip(*other, strict=True), color="#D3D9E0", linewidth=0.8)
        _line(ax, points, PALETTE[0])
        _loss_axes(ax, lines, 4)
        over: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
        ax.annotate(clip(site, 16), (0, 1), (0, 6), fontweight="bold", **over)
        ax.annotate(f"{points[-1][1]:.2f}", (1, 1), (0, 6), ha="right", **over)
        if column:
            ax.set_yticklabels([])
        if at + columns < len(lines):
            ax.set_xticklabels([])
    axis_words = "across: round; up: loss, nats per token; right: last value"
    fig.text(0, 8 / height, axis_words, fontsize=10.5, color=SOFT)
    return fig


def _line(ax: Axes, points: list[tuple[int, float]], colour: str) -> None:
    marker = "o" if len(points) <= _MARKED_ROUNDS else ""
    ax.plot(
        *zip(*points, strict=True), color=colour, linewidth=1.8, marker=marker, markersize=4, solid_capstyle="round"
    )


def _loss_axes(ax: Axes, lines: dict[str, list[tuple[int, float]]], ticks: int) -> None:
    from matplotlib.ticker import MaxNLocator

    rounds = [n for points in lines.values() for n, _ in points]
    values = [v for points in lines.values() for _, v in points]
    pad = max(0.06 * (max(values) - min(values)), 0.02)
    ax.set_xlim(min(rounds) - 0.15, max(max(rounds), min(rounds) + 1) + 0.15)
    ax.set_ylim(min(values) - pad, max(values) + pad)
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="y", color=GRID, linewidth=0.8)


def timeline(facts: RunFacts, width: float = WIDE) -> str:
    """Horizontal bars per site: compute, wait and transfer over time; shares of time per bin when spans are many."""
    sites = [s.name for s in facts.sites if any(span.site == s.name for span in facts.spans)]
    sites += sorted({span.site for span in facts.spans} - set(sites))
    spans = {site: [s for s in facts.spans if s.site == site] for site in sites}
    crowded = max(len(s) for s in spans.values()) > _DRAWN_SPANS * width / WIDE
    end_s = max(max(s.end_s for s in facts.spans), 1e-3)
    units = ((86400, "days"), (3600, "hours"), (60, "minutes"))
    scale, unit = next(((n, u) for n, u in units if end_s > 3 * n), (1, "seconds"))
    labels = [clip(s, label_size(width) - 4) for s in sites]
    left, body = margin(labels), 30.0 * len(sites)
    wide = width - left - 10
    with style():
        fig = figure(width, body + 72)
        legend(fig, [(name, {"facecolor": colour}) for name, colour in KINDS.values()])
        ax = axes(fig, left, 42, wide, body)
        for at, site in enumerate(sites):
            if crowded:
                _shares(ax, at, spans[site], end_s / scale, scale)
            else:
                _bars(ax, at, spans[site], scale, wide / (end_s / scale))
        ax.set_xlim(0, end_s / scale)
        ax.set_ylim(len(sites) - 0.5, -0.5)
        ax.set_yticks(range(len(sites)), labels)
        ax.grid(axis="x", color=GRID, linewidth=0.8)
        label = f"{unit} since the run began"
        if crowded:
            label = f"{unit}; heights are shares of each {duration(end_s / _BINS)}"
        ax.set_xlabel(label, loc="left")
        return svg(fig, "timeline", "What each site did over time: compute, wait, transfer")


def _bars(ax: Axes, at: int, spans: list[Span], scale: float, points_per_unit: float) -> None:
    for kind, (_, colour) in KINDS.items():
        mine = [(s.start_s / scale, (s.end_s - s.start_s) / scale) for s in spans if s.kind == kind]
        high = 0.28 if kind == "wait" else 0.62
        ax.broken_barh(mine, (at - high / 2, high), facecolors=colour, linewidth=0)
    for span in spans:
        label = str(span.round)
        if span.kind == "compute" and (span.end_s - span.start_s) / scale * points_per_unit > text_width(label, 9) + 5:
            middle = (span.start_s + span.end_s) / 2 / scale
            ax.text(middle, at, label, color="white", fontsize=9, ha="center", va="center_baseline")


def _shares(ax: Axes, at: int, spans: list[Span], end: float, scale: float) -> None:
    wide = end / _BINS
    amounts: dict[str, list[float]] = {kind: [0.0] * _BINS for kind in KINDS}
    for span in spans:
        start, stop = span.start_s / scale, span.end_s / scale
        for cell in range(int(start / wide), min(int(stop / wide), _BINS - 1) + 1):
            amounts[span.kind][cell] += max(0.0, min(stop, (cell + 1) * wide) - max(start, cell * wide)) / wide
    edges = [i * wide for i in range(_BINS + 1)]
    base = [at + 0.36] * _BINS
    for kind, (_, colour) in KINDS.items():
        # Compute and transfer at the same time can sum to more than the bin: a row is 0.72 high at most.
        top = [max(b - 0.72 * a, at - 0.36) for a, b in zip(amounts[kind], base, strict=True)]
        ax.stairs(top, edges, baseline=base, fill=True, color=colour, linewidth=0)
        base = top
