"""Plots on paper: SVG for the page, in colours that follow its light or dark mode, and PNG.

Every panel has the same layout in both. In the SVG each colour is a CSS variable, text is text,
and ids carry the name of the plot, so that many can stand on one page.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.errors import MissingExtra
from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.columns import written
from engram_transformers.evaluation.report.palette import INK, MUTED, PAPER, RULE, Colour
from engram_transformers.evaluation.report.plots import Panel, Plot, Series, told_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, ROW, TOP, BOTTOM, LINES, LEFT = 330, 20, 34, 44, 230, 58
"Sizes in points: of a panel of dots, of a row of dots, of the margins, of lines and left of them."
_LETTER = 6.1
"About the width of a letter."
FEW = 4
"Places along x, each of which is named then."
_NAME = 36
"Letters of a line's name, at most."
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
}
_SVG: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}


def check() -> None:
    """`MissingExtra` where plots cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "reports need matplotlib; install it with: pip install 'engram-transformers[report]'"
        ) from error


def svg(panel: Panel, colours: Mapping[str, Colour], name: str) -> str:
    """One panel as an `<svg>` that can stand in a page; `name` must be unique there."""
    width, height = size(panel)
    with paper(width, height, name) as figure:
        draw(_axes(figure, panel, (0, 0), (width, height)), panel, colours)
        figure.patch.set_alpha(0)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata=_SVG)
    return _inlined(target.getvalue(), panel, colours, name)


def png(plot: Plot, colours: Mapping[str, Colour], path: Path) -> None:
    """All panels of a plot side by side, three in a row at most, the rows as even as can be."""
    sizes = [size(panel) for panel in plot.panels]
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes)
    across = math.ceil(len(sizes) / math.ceil(len(sizes) / 3))
    whole = (width * across, height * math.ceil(len(sizes) / across) + TOP)
    with paper(*whole, plot.name) as figure:
        figure.patch.set_facecolor("#ffffff")
        at = 1 - 10 / whole[1]
        figure.text(
            10 / whole[0], at, _short(plot.title, 60), va="top", weight="bold", color=INK.light
        )
        for i, panel in enumerate(plot.panels):
            own = sizes[i][1]
            corner = (i % across * width, whole[1] - TOP - i // across * height - own)
            draw(_axes(figure, panel, corner, whole), panel, colours)
        figure.savefig(path, format="png", dpi=144, metadata={"Software": None})


def size(panel: Panel) -> tuple[float, float]:
    """Width and height of a panel in points."""
    if panel.lines:
        return LEFT + LINES + _beside(panel), LINES + TOP + BOTTOM
    return WIDTH, len(panel.series) * ROW + TOP + BOTTOM


def _beside(panel: Panel) -> float:
    """Room for the names at the ends of lines."""
    return max((len(_short(one.label, _NAME)) for one in panel.series), default=0) * _LETTER + 34


def draw(axes: Axes, panel: Panel, colours: Mapping[str, Colour]) -> None:
    """A panel into its axes."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE.light)
    axes.tick_params(length=0, colors=MUTED.light, labelsize=9.5)
    title: dict[str, Any] = {
        "loc": "left",
        "color": INK.light,
        "weight": "bold",
        "size": 10.5,
        "pad": 10,
    }
    axes.set_title(_short(panel.title, 60), **title)
    axes.set_xlabel(panel.x_title, color=MUTED.light, size=9.5)
    (_draw_lines if panel.lines else _draw_dots)(axes, panel, colours)


def _draw_dots(axes: Axes, panel: Panel, colours: Mapping[str, Colour]) -> None:
    count = len(panel.series)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_yticks(range(count), [_short(one.label) for one in panel.series])
    for tick, one in zip(axes.get_yticklabels(), panel.series, strict=True):
        tick.set_color(MUTED.light if one.control else INK.light)
    axes.grid(axis="x", color=RULE.light, linewidth=0.7)
    axes.set_axisbelow(True)
    if panel.zero:
        axes.axvline(0, color=MUTED.light, linewidth=1)
    for y, one in enumerate(panel.series):
        _dot(axes, y, one, panel, colours[one.label])
    _scale_x(axes, panel)


def _dot(axes: Axes, y: int, one: Series, panel: Panel, colour: Colour) -> None:
    if one.points:
        found = one.points[0][1]
        axes.hlines(y, found.low, found.high, color=colour.light, linewidth=2)
        axes.plot([found.value], [y], **_marker(one, colour))
        words = _signed(found) if panel.zero else written(found.value, panel.unit)
    else:
        words = "–"
    place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    right: dict[str, Any] = {**place, "va": "center", "ha": "right", "size": 9.5}
    axes.annotate(words, (1, y), xytext=(46, -0.5), color=INK.light, **right)


def _scale_x(axes: Axes, panel: Panel) -> None:
    if panel.zero:
        ends = [abs(end) for one in panel.series for _, m in one.points for end in (m.low, m.high)]
        far = max([0.01, *ends]) * 1.08
        axes.set_xlim(-far, far)
        axes.xaxis.set_major_locator(_ticker().MaxNLocator(5, symmetric=True))
        axes.xaxis.set_major_formatter(
            lambda x, _: f"{100 * x:+.3g}".replace("-", "−").replace("+0", "0")
        )
    elif panel.unit == "share":
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])


def _draw_lines(axes: Axes, panel: Panel, colours: Mapping[str, Colour]) -> None:
    xs = sorted({x for one in panel.series for x, _ in one.points})
    at = {x: float(i) if panel.x_scale == "named" else x for i, x in enumerate(xs)}
    span = max(at.values()) - min(at.values()) or 1
    if panel.x_scale == "log":
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    middle = (len(panel.series) - 1) / 2
    for i, one in enumerate(panel.series):
        # Lines that run together would hide each other: each stands a little aside.
        aside = (i - middle) * 0.01
        shifted = {
            x: y * 20**aside if panel.x_scale == "log" else y + aside * span for x, y in at.items()
        }
        _line(axes, one, shifted, colours[one.label])
    axes.grid(axis="y", color=RULE.light, linewidth=0.7)
    axes.set_axisbelow(True)
    _ticks(axes, panel, [at[x] for x in xs], xs)
    _label_ends(axes, panel, at, colours)


def _line(axes: Axes, one: Series, at: Mapping[float, float], colour: Colour) -> None:
    xs = [at[x] for x, _ in one.points]
    dashes = (0, (3, 2)) if one.control else "-"
    values = [each.value for _, each in one.points]
    axes.plot(xs, values, color=colour.light, linewidth=1.6, linestyle=dashes)
    axes.vlines(
        xs,
        [each.low for _, each in one.points],
        [each.high for _, each in one.points],
        color=colour.light,
        linewidth=1.2,
        alpha=0.6,
    )
    axes.plot(xs, values, **_marker(one, colour))


def _ticks(axes: Axes, panel: Panel, places: Sequence[float], xs: Sequence[float]) -> None:
    ticker = _ticker()
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    if panel.x_scale == "named" or len(xs) <= FEW:
        axes.set_xticks(places, [_count(x) for x in xs])
    else:
        axes.xaxis.set_major_formatter(lambda x, _: _count(x))
    if panel.unit == "share":
        axes.set_ylim(-0.03, 1.05)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        return
    if panel.log_y:
        # Within one decade there would be a single tick, or none.
        low, high = axes.get_ylim()
        some = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
        decades = ticker.LogLocator(subs=some, numticks=12)
        axes.yaxis.set_major_locator(decades if high / low > 5 else ticker.MaxNLocator(5))
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.yaxis.set_major_formatter(lambda y, _: written(y, panel.unit))


def _label_ends(
    axes: Axes, panel: Panel, at: Mapping[float, float], colours: Mapping[str, Colour]
) -> None:
    """Each line's name at its end, moved apart where ends are close, with a thread to the end."""
    ends = [(at[one.points[-1][0]], one.points[-1][1].value) for one in panel.series]
    box = axes.get_window_extent()
    dots = [axes.transData.transform(end) for end in ends]
    fractions = [(y - box.y0) / box.height for _, y in dots]
    spots = spread(fractions, gap=14 / (box.height * 72 / axes.figure.dpi))
    for one, end, spot in zip(panel.series, ends, spots, strict=True):
        axes.annotate(
            _short(one.label, _NAME),
            end,
            xytext=(1.05, spot),
            textcoords="axes fraction",
            va="center",
            size=9.5,
            color=MUTED.light if one.control else INK.light,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colours[one.label].light,
                "linewidth": 0.8,
                "alpha": 0.8,
                "shrinkA": 0,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )


def spread(places: Sequence[float], *, gap: float) -> list[float]:
    """Places moved apart to at least `gap`, in their order, as little and as centred as goes."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    groups: list[list[int]] = []
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _top(groups[-2], places, gap) > _start(groups[-1], places, gap):
            groups[-2:] = [groups[-2] + groups[-1]]
    found = [0.0] * len(places)
    for group in groups:
        for rank, i in enumerate(group):
            found[i] = _start(group, places, gap) + rank * gap
    return found


def _start(group: Sequence[int], places: Sequence[float], gap: float) -> float:
    middle = sum(places[i] for i in group) / len(group)
    return max(0.0, min(middle - gap * (len(group) - 1) / 2, 1.0 - gap * (len(group) - 1)))


def _top(group: Sequence[int], places: Sequence[float], gap: float) -> float:
    return _start(group, places, gap) + gap * len(group) - 1e-9


def _marker(one: Series, colour: Colour) -> dict[str, Any]:
    hollow = one.control
    return {
        "linestyle": "none",
        "marker": colour.marker,
        "markersize": 8.5 if colour.marker in "*|" else 6.5,
        "markerfacecolor": PAPER.light if hollow else colour.light,
        "markeredgecolor": colour.light,
        "markeredgewidth": 1.8 if colour.marker == "|" else 1.2,
    }


def _axes(
    figure: Figure, panel: Panel, corner: tuple[float, float], whole: tuple[float, float]
) -> Axes:
    """Axes of a panel whose lower left corner is there, on paper of that size."""
    width, height = size(panel)
    longest = max((len(_short(one.label)) for one in panel.series), default=0) * _LETTER
    left, right = (LEFT, _beside(panel)) if panel.lines else (longest + 10, 50)
    bottom = BOTTOM if panel.x_title else BOTTOM - 14
    x, y = (corner[0] + left) / whole[0], (corner[1] + bottom) / whole[1]
    across, up = (width - left - right) / whole[0], (height - TOP - bottom) / whole[1]
    return figure.add_axes((x, y, across, up))


@contextmanager
def paper(width: float, height: float, salt: str) -> Iterator[Figure]:
    """A figure of so many points, in our style; `salt` makes the ids in it its own."""
    check()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Labels in scripts that the font lacks are boxes in the PNG; the page has its own fonts.
        warnings.filterwarnings("ignore", message="Glyph")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": salt})
        yield Figure(figsize=(width / 72, height / 72))


def _inlined(text: str, panel: Panel, colours: Mapping[str, Colour], name: str) -> str:
    """The `<svg>` alone, told in words, with ids of its own and colours that the page sets."""
    body = text[text.index("<svg") :]
    body = re.sub(r' (?:xmlns(?::\w+)?|width|height)="[^"]*"', "", body.partition(">")[0]) + (
        ">" + body.partition(">")[2]
    )
    body = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.S)
    body = re.sub(r'\b(id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda m: variable(m[0], colours), body)
    told = f'<title id="{name}-t">{escape(panel.title)}</title>'
    told += f'<desc id="{name}-d">{escape(panel.words)}</desc>'
    width = size(panel)[0]
    head = f'<svg role="img" aria-labelledby="{name}-t" aria-describedby="{name}-d" '
    head += f'class="{"lines" if panel.lines else "dots"}" style="max-width: {width * 1.25:.0f}px"'
    return body.replace("<svg", head, 1).replace(">", f">{told}", 1).strip()


def variable(colour: str, colours: Mapping[str, Colour]) -> str:
    """The CSS variable that stands for a colour; the colour itself if there is none."""
    fixed = {INK.light: "ink", MUTED.light: "muted", RULE.light: "rule", PAPER.light: "paper"}
    if colour in fixed:
        return f"var(--{fixed[colour]})"
    found = [i for i, each in enumerate(colours.values()) if each.light == colour]
    return f"var(--m{found[0]})" if found else colour


def _count(x: float) -> str:
    """A number at an axis: short, so that neighbours do not touch."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if x >= 10_000 and x >= size and x % (size / 10) == 0:
            return f"{x / size:,.4g} {letter}"
    return told_place(x)


def _signed(found: Measure) -> str:
    return f"{100 * found.value:+.1f}".replace("-", "−").replace("+0.0", "0").replace("−0.0", "0")


def _short(label: str, most: int = 30) -> str:
    """One line of a label; what fonts cannot show would break the drawing."""
    line = " ".join("".join(each if each.isprintable() else " " for each in label).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _ticker() -> Any:
    from matplotlib import ticker

    return ticker
