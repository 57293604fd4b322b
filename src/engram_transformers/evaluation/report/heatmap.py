"""Pictures of gates: how far one is open along texts, and whether its probabilities are true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.drawing import check
from engram_transformers.evaluation.report.palette import BLUE, INK, MUTED, PAPER, RULE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER, LINE, WIDTH, LEFT = 0.085, 0.3, 9.0, 0.15
"Inches: a letter's width, a line's height, the picture's width, its margins."
Cell = tuple[float, str, float]
"Where a token stands, its text, its number."
_COUNT: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5}
_PLAIN: dict[str, Any] = {"va": "center", "parse_math": False}


@dataclass(frozen=True)
class Shaded:
    """A text with a number from 0 to 1 for each of its tokens."""

    title: str
    texts: Sequence[str]
    values: Sequence[float]


@dataclass(frozen=True)
class CurvePoint:
    """What was said, and how often it was so."""

    said: float
    found: Measure


def heatmap(texts: Sequence[Shaded], path: Path, *, threshold: float = 0.0) -> None:
    """Write texts as a PNG whose tokens are the darker the larger their number.

    Args:
        threshold: tokens at or above it are underlined.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    check()
    from matplotlib.figure import Figure

    lines = [(one, list(_lines(one))) for one in texts]
    height = LINE * (sum(len(wrapped) + 1 for _, wrapped in lines) + 0.5)
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER.light)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.axis("off")
    y = 0.5 * LINE
    for one, wrapped in lines:
        axes.text(LEFT, y, one.title, color=MUTED.light, size=8.5, **_PLAIN)
        for cells in wrapped:
            y += LINE
            _shade(axes, cells, y, threshold=threshold)
        y += LINE
    _write(figure, path)


def calibration(points: Sequence[CurvePoint], path: Path, *, title: str) -> None:
    """Write a calibration curve with its intervals as a PNG; the diagonal is a true gate.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    check()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 5.2), facecolor=PAPER.light, layout="tight")
    axes, counts = figure.subplots(2, sharex=True, height_ratios=(5, 1))
    axes.plot([0, 1], [0, 1], color=RULE.light, lw=1)
    for one in points:
        at, found = one.said, one.found
        axes.plot([at, at], [found.low, found.high], color=MUTED.light, lw=1)
        axes.plot([at], [found.value], "o", color=BLUE)
        counts.bar(at, found.n, width=0.04, color=BLUE)
        counts.annotate(str(found.n), (at, found.n), (0, 2), ha="center", **_COUNT)
    axes.set_title(title, parse_math=False)
    axes.set(ylim=(-0.03, 1.03), ylabel="share that was a look-up, 95 %")
    counts.set(xlim=(-0.03, 1.03), xlabel="probability that the gate gave", ylabel="prompts")
    counts.set_yticks([])
    counts.margins(y=0.3)
    for each in (axes, counts):
        each.set_facecolor(PAPER.light)
    _write(figure, path)


def _lines(one: Shaded) -> Iterator[list[Cell]]:
    """Tokens with their places and numbers, line by line."""
    x, cells = LEFT, list[Cell]()
    for text, value in zip(one.texts, one.values, strict=True):
        shown = text.replace("\n", "\u23ce") or "\u00b7"
        if cells and x + len(shown) * LETTER > WIDTH - LEFT:
            yield cells
            x, cells = LEFT, []
        cells.append((x, shown, min(1.0, max(0.0, value))))
        x += len(shown) * LETTER
    yield cells


def _shade(axes: Axes, cells: Sequence[Cell], y: float, *, threshold: float) -> None:
    from matplotlib.patches import Rectangle

    for x, text, value in cells:
        width, corner = len(text) * LETTER, (x, y - 0.4 * LINE)
        patch = Rectangle(corner, width, 0.8 * LINE, color="#cf5300", alpha=0.75 * value, lw=0)
        axes.add_patch(patch)
        if value >= threshold > 0:
            axes.hlines(y + 0.42 * LINE, x, x + width, color=INK.light, lw=0.8)
        axes.text(x, y, text, color=INK.light, family="monospace", size=9.5, **_PLAIN)


def _write(figure: Figure, path: Path) -> None:
    # Without a date or a version the same numbers give the same file.
    figure.savefig(path, dpi=130, format="png", metadata={"Software": None})
