"""Plots of a study as PNG files: curves as in the report, and heatmaps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.errors import StoreError
from engram_transformers.evaluation.report import drawing
from engram_transformers.evaluation.report.palette import INK, MUTED, palette
from engram_transformers.evaluation.report.plots import Plot
from engram_transformers.studies.study import Heatmap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 24
"Words in one line of a heatmap."
_CELL, _LEFT, _TOP = 34, 62, 52
"Sizes in points: of a word, of the names of rows, of the title."


def draw(plot: Plot | Heatmap, folder: Path) -> Path:
    """Draw a plot into a folder; `MissingExtra` without matplotlib."""
    drawing.check()
    path = folder / f"{plot.name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(plot, Heatmap):
            _heatmap(plot, path)
        else:
            drawing.png(plot, _colours(plot), path)
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error.strerror or error}") from error
    return path


def words(plot: Plot | Heatmap) -> str:
    """A plot told to those who cannot see it."""
    if isinstance(plot, Heatmap):
        return plot.words
    return " ".join([f"{plot.title}.", *(panel.words for panel in plot.panels)])


def _colours(plot: Plot) -> dict[str, Any]:
    series = [one for panel in plot.panels for one in panel.series]
    labels = list(dict.fromkeys(one.label for one in series))
    return palette(labels, list(dict.fromkeys(one.label for one in series if one.control)))


def _heatmap(plot: Heatmap, path: Path) -> None:
    """Words in lines of `ACROSS`, the rows of each line below one another."""
    count = len(plot.columns)
    lines = [range(i, min(i + ACROSS, count)) for i in range(0, count, ACROSS)]
    tall = 18 * len(plot.rows)
    across, line = min(ACROSS, count), tall + 58
    whole = (_LEFT + across * _CELL + 12, _TOP + line * len(lines))
    with drawing.paper(*whole, plot.name) as figure:
        figure.patch.set_facecolor("#ffffff")
        top = 1 - 12 / whole[1]
        figure.text(10 / whole[0], top, plot.title, va="top", weight="bold", color=INK.light)
        for i, places in enumerate(lines):
            width, y = len(places) * _CELL, whole[1] - _TOP - i * line - tall
            box = (_LEFT / whole[0], y / whole[1], width / whole[0], tall / whole[1])
            _cells(figure.add_axes(box), plot, places)
        figure.savefig(path, format="png", dpi=144, metadata={"Software": None})


def _cells(axes: Axes, plot: Heatmap, places: range) -> None:
    values = [[row[i] for i in places] for row in plot.values]
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    told = [plot.labels[i] for i in places]
    axes.set_xticks(range(len(told)), told, rotation=40, ha="right", size=8, color=INK.light)
    axes.set_yticks(range(len(plot.rows)), list(plot.rows), size=9, color=MUTED.light)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            ink = "#ffffff" if value > 0.6 else INK.light
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", size=7.5, color=ink)
