"""Plots of what was found, as PNG files: maps of likeness, sweeps over layers, bars, heatmaps."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engram_transformers.errors import StoreError
from engram_transformers.evaluation.metrics import wilson
from engram_transformers.evaluation.report import drawing
from engram_transformers.evaluation.report.palette import BLUE, INK, MUTED, RULE
from engram_transformers.introspection.arithmetic import Arithmetic
from engram_transformers.introspection.commutativity import Commutativity
from engram_transformers.introspection.facts import FactSet
from engram_transformers.introspection.memory import MemoryMap
from engram_transformers.introspection.organisation import Organisation
from engram_transformers.introspection.patching import EFFECTS, PatchSweep
from engram_transformers.introspection.relations import ORDER, relations_of
from engram_transformers.introspection.retrieval import CLASSES, Retrieval
from engram_transformers.introspection.tracing import LEAST, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]
"Left, top, width and height in points; the top is measured from the top of the paper."

# Hues that people with any kind of colour blindness can tell apart (Okabe and Ito, 2008).
ORANGE, GREEN, PINK, PURPLE = "#cf5300", "#00815d", "#b4467f", "#6f51b5"
RELATIONS = dict(zip(ORDER, (GREEN, PINK, BLUE, ORANGE, PURPLE), strict=True))
KNOWN = dict(zip(CLASSES, ("#08519c", "#4a98c9", "#b0cfe8", "#e3e6ea"), strict=True))
HAPPENED = dict(zip(EFFECTS, (BLUE, "#e8b48c", "#e3e6ea", "#8a919a"), strict=True))
SHIFTS = "How much more alike than unrelated facts, by layer"
NAME = 14
"Points from one line's name to the next, at least."
BINS = 24
"Steps in which likeness is counted."
LONGEST_AXIS = 24
"Facts up to which a map names every one."


def draw_memory(found: MemoryMap, path: Path, *, model: str) -> None:
    """A map of likeness in one or two orders, sweeps over layers, bars of difficulty."""
    parts: list[tuple[str, Callable[[Axes], None]]] = []
    alike, facts = found.similarities, found.facts
    if alike is not None:
        for name, order, groups in _orders(facts):
            title = f"Likeness of states at layer {found.layer}, ordered by {name}"
            parts.append((title, partial(_map, alike, facts, order, groups)))
    if found.sweep:
        parts.append((SHIFTS, lambda a: _shifts(a, found.sweep)))
    elif alike is not None and found.organisation is not None and found.organisation.effects:
        title = f"Likeness of pairs at layer {found.layer}, by relation"
        parts.append((title, lambda a: _spreads(a, alike, facts)))
    seen = found.retrieval
    if seen is not None:
        parts.append(("Log-probability of the whole answers, by layer", lambda a: _heard(a, seen)))
        parts.append(("How well facts are known", lambda a: _difficulty(a, facts, seen)))
        if facts.has_operands:
            title = "Log-probability of the whole answers, by operands"
            parts.append((title, lambda a: _operands(a, facts, seen)))
    here = found.organisation
    verdict = "" if here is None else f": {here.type} at layer {found.layer}"
    title = f"{len(facts.facts)} {facts.name} facts in {model}{verdict}"
    _grid(title, parts, path)


def draw_commutativity(found: Commutativity, path: Path, *, model: str) -> None:
    """Likeness by relation over the layers, and of every pair at one."""
    parts: list[tuple[str, Callable[[Axes], None]]] = []
    if found.sweep:
        parts.append((SHIFTS, lambda a: _shifts(a, found.sweep)))
    parts.append((f"A*B and B*A at layer {found.layer}: cosine", lambda a: _pairs(a, found)))
    _grid(f"{found.facts.name} in {model}: {found.verdict}", parts, path)


def draw_patch(found: PatchSweep, path: Path, *, model: str) -> None:
    """Log-probabilities of both answers over the layers, and what each patch did."""
    title = f"{found.source} → {found.target}, in {model}"
    whole = (720, 392)
    with drawing.paper(*whole, path.name) as figure:
        _title(figure, title, whole)
        axes = _axes(figure, (62, 52, 540, 220), whole)
        layers = [one.layer for one in found.layers]
        lines = {
            found.source_answer: [one.source_logprob for one in found.layers],
            found.target_answer: [one.target_logprob for one in found.layers],
        }
        colours = {found.source_answer: BLUE, found.target_answer: ORANGE}
        for (name, colour), value in zip(colours.items(), ("source", "target"), strict=True):
            control = [getattr(one, f"{value}_logprob") for one in found.control]
            axes.plot(
                layers, control, color=colour, linewidth=1.1, linestyle=(0, (2, 2)), alpha=0.7
            )
            before = found.target_alone[name == found.target_answer]
            axes.axhline(before, color=colour, linewidth=0.8, alpha=0.35)
        # Last, for the names at the ends are placed by the scale.
        _lines(axes, layers, lines, colours)
        axes.set_ylabel("log P of the whole answer", color=MUTED.light, size=9.5)
        strip = _axes(figure, (62, 316, 540, 14), whole)
        _strip(strip, [HAPPENED[one.effect] for one in found.layers])
        axes.set_xlim(-0.5 + layers[0], layers[-1] + 0.5)
        axes.set_xticks(layers[:: max(1, -(-len(layers) // 12))])
        axes.set_xlabel("layer at which the state is put in", color=MUTED.light, size=9.5)
        _keys(figure, {k.replace("_", " "): v for k, v in HAPPENED.items()}, (62, 348), whole)
        note = "dashes: control; thin: without a patch"
        figure.text(
            420 / whole[0], 1 - 352 / whole[1], note, size=9, color=MUTED.light, va="center"
        )
        _save(figure, path)


def draw_arithmetic(found: Arithmetic, path: Path, *, model: str) -> None:
    """Log-probability of results over the layers, and the share that is right."""
    groups = found.groups(lambda one: f"{one.operation}, {one.difficulty}")
    names = list(dict.fromkeys(one.problem.operation for one in found.problems))
    curves = {
        name: found.logprobs[:, [o.problem.operation == name for o in found.problems]].mean(1)
        for name in names
    }
    colours = dict(zip(names, (BLUE, ORANGE, GREEN), strict=False))

    def heard(axes: Axes) -> None:
        _lines(axes, found.layers, curves, colours)
        axes.set_xlabel("layer, through the lens", color=MUTED.light, size=9.5)

    def right(axes: Axes) -> None:
        shares = [wilson(one.right, one.n) for one in groups]
        places = range(len(groups))
        hues = [colours[one.name.split(",")[0]] for one in groups]
        axes.barh(places, [s.value for s in shares], color=hues, height=0.62, alpha=0.85)
        axes.hlines(
            places, [s.low for s in shares], [s.high for s in shares], color=INK.light, lw=1
        )
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_yticks(places, [one.name for one in groups], size=9, color=INK.light)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])

    _grid(
        f"{len(found.problems)} problems in {model}",
        [
            ("Log-probability of the whole result, by layer", heard),
            ("Right results, with 95 % intervals", right),
        ],
        path,
    )


def draw_trace(found: Trace, path: Path, *, model: str) -> None:
    """What comes back with each state: tokens down, layers across."""
    tokens = [f"{t.strip() or repr(t)}{' *' * (i in found.disturbed)}" for i, t in _numbered(found)]
    left = 24 + 6.4 * max(map(len, tokens))
    across, tall = max(420, 15 * len(found.layers)), max(120, 26 * len(tokens))
    whole = (left + across + 110, 70 + tall + 62)
    with drawing.paper(*whole, path.name) as figure:
        _title(figure, f"{found.prompt} → {found.answer}, in {model}", whole)
        axes = _axes(figure, (left, 62, across, tall), whole)
        # A scale of less would draw a pattern where there is nothing to trace.
        top = max(float(found.effect.max()), LEAST)
        image = axes.imshow(
            found.effect.T,
            cmap="Purples" if found.kind == "block" else "Greens",
            vmin=0,
            vmax=top,
            aspect="auto",
            extent=(-0.5, len(found.layers) - 0.5, len(tokens) - 0.5, -0.5),
        )
        axes.set_yticks(range(len(tokens)), tokens, size=10, color=INK.light)
        axes.set_xticks(_every(len(found.layers)))
        what = (
            "a block" if found.kind == "block" else f"{found.window} feed-forwards around a layer"
        )
        axes.set_xlabel(
            f"layer: what {what} gives is put back   (* disturbed)", color=MUTED.light, size=9.5
        )
        bar: Any = figure.colorbar(
            image, cax=_axes(figure, (left + across + 14, 62, 12, tall), whole)
        )
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=9, colors=MUTED.light)
        said = f"P {found.clean:.3f} undisturbed, {found.corrupted:.3f} with noise; "
        said += "comes back:" if found.traceable else "there is nothing to trace"
        figure.text(left / whole[0], 1 - 48 / whole[1], said, size=9.5, color=MUTED.light)
        _save(figure, path)


# -- parts -------------------------------------------------------------------------------------


def _orders(facts: FactSet) -> list[tuple[str, list[int], list[str]]]:
    """Ways to order facts on a map: a name, the order, and the group of each fact in it."""
    if facts.has_operands:
        pairs = [fact.operands or ("", "") for fact in facts.facts]
        keys = {"first operand": [a for a, _ in pairs], "second operand": [b for _, b in pairs]}
    else:
        keys = {"category": [fact.category or "" for fact in facts.facts]}
    orders = {name: _sorted(groups) for name, groups in keys.items()}
    return [(name, order, [keys[name][i] for i in order]) for name, order in orders.items()]


def _sorted(groups: Sequence[str]) -> list[int]:
    # By length first, so that 10 stands behind 9.
    return sorted(
        range(len(groups)), key=lambda i: (len(groups[i]) * groups[i].isdecimal(), groups[i], i)
    )


def _map(alike: Array, facts: FactSet, order: list[int], groups: list[str], axes: Axes) -> None:
    shown = alike[np.ix_(order, order)].copy()
    np.fill_diagonal(shown, np.nan)
    # Centred cosines have both signs, raw ones may all be close to 1: let each fill the scale.
    far = float(np.nanmax(np.abs(shown)))
    low = -far if np.nanmin(shown) < 0 else float(np.nanmin(shown))
    image = axes.imshow(shown, cmap="RdBu_r" if low < 0 else "Blues", vmin=low, vmax=far)
    edges = [i for i in range(1, len(groups)) if groups[i] != groups[i - 1]]
    for edge in edges:
        axes.axhline(edge - 0.5, color="#ffffff", linewidth=1.2)
        axes.axvline(edge - 0.5, color="#ffffff", linewidth=1.2)
    starts = [0, *edges, len(groups)]
    middles = [(a + b - 1) / 2 for a, b in pairwise(starts)]
    names = [groups[a] for a in starts[:-1]]
    if len(groups) <= LONGEST_AXIS and len(names) < 2:
        middles, names = list(range(len(order))), [facts.facts[i].prompt[-18:] for i in order]
    axes.set_yticks(middles, names, size=9, color=INK.light)
    short = all(len(name) < 4 for name in names)
    axes.set_xticks(middles, names, size=9, color=INK.light, rotation=0 if short else 90)
    bar: Any = axes.figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, colors=MUTED.light)


def _shifts(axes: Axes, sweep: Sequence[tuple[int, Organisation]]) -> None:
    layers = [layer for layer, _ in sweep]
    names = [one.relation for one in sweep[0][1].effects]
    lines = {
        name.replace("_", " "): [each.effects[i].shift for _, each in sweep]
        for i, name in enumerate(names)
    }
    axes.axhline(0, color=MUTED.light, linewidth=0.9)
    # Differences of a few hundredths should look as small as they are.
    axes.plot([layers[0]] * 2, [-0.1, 0.2], alpha=0)
    _lines(axes, layers, lines, {n.replace("_", " "): RELATIONS[n] for n in names})
    for i, name in enumerate(names):
        sure = [(layer, e.effects[i].shift) for layer, e in sweep if e.effects[i].significant]
        if sure:
            axes.plot(*zip(*sure, strict=True), "o", color=RELATIONS[name], markersize=3.6)
    axes.set_xlabel("layer   (dots: p < 0.05 over all layers)", color=MUTED.light, size=9.5)


def _spreads(axes: Axes, alike: Array, facts: FactSet) -> None:
    """Below one another how the cosines of each relation's pairs spread, and their means."""
    related = relations_of(facts).pairs
    cosines = {name: alike[pairs[:, 0], pairs[:, 1]] for name, pairs in related.items()}
    steps = np.histogram_bin_edges(np.concatenate([*cosines.values()]), BINS)
    for row, (name, found) in enumerate(cosines.items()):
        colour, heights = RELATIONS.get(name, MUTED.light), np.histogram(found, steps)[0]
        tops = row - 0.82 * heights / heights.max()
        axes.stairs(tops, steps, baseline=row, fill=True, color=colour, alpha=0.25)
        axes.stairs(tops, steps, baseline=row, color=colour, linewidth=1.1)
        axes.vlines(found.mean(), row - 0.9, row, color=colour, linewidth=2.2)
    names = [f"{name.replace('_', ' ')}\n{len(found)} pairs" for name, found in cosines.items()]
    axes.set_yticks([row - 0.3 for row in range(len(names))], names, size=9, color=INK.light)
    axes.set_ylim(len(names) - 0.96, -1)
    axes.set_xlim(steps[0], steps[-1])
    axes.set_xlabel("cosine, each relation by itself   (thick: mean)", color=MUTED.light, size=9.5)


def _heard(axes: Axes, seen: Retrieval) -> None:
    low, middle, high = np.percentile(seen.logprobs, [10, 50, 90], axis=1)
    axes.fill_between(seen.layers, low, high, color=BLUE, alpha=0.15, linewidth=0)
    _lines(axes, seen.layers, {"median": middle}, {"median": BLUE})
    axes.set_xlabel(
        "layer, through the lens   (band: 10 to 90 % of facts)", color=MUTED.light, size=9.5
    )


def _difficulty(axes: Axes, facts: FactSet, seen: Retrieval) -> None:
    """One bar for each first operand or category, of facts by how well they are known."""
    names = [
        f"{fact.operands[0]} ·" if fact.operands else fact.category or "all" for fact in facts.facts
    ]
    groups = list(dict.fromkeys(names))
    start = np.zeros(len(groups))
    for name, colour in KNOWN.items():
        counts = np.array(
            [
                sum(
                    n == group and one.difficulty == name
                    for n, one in zip(names, seen.facts, strict=True)
                )
                for group in groups
            ],
            dtype=float,
        )
        axes.barh(groups, counts, left=start, color=colour, height=0.72, label=name)
        start += counts
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=9, labelcolor=INK.light)
    axes.set_xlim(0, start.max())
    axes.legend(
        ncols=len(KNOWN), loc="upper left", bbox_to_anchor=(-0.02, -0.09), frameon=False,
        fontsize=9, handlelength=1, columnspacing=1, labelcolor=MUTED.light,
    )  # fmt: skip


def _operands(axes: Axes, facts: FactSet, seen: Retrieval) -> None:
    """Every fact at its operands: the first down, the second across."""
    pairs = [fact.operands or ("", "") for fact in facts.facts]
    down, across = (sorted({pair[k] for pair in pairs}, key=lambda o: (len(o), o)) for k in (0, 1))
    table = np.full((len(down), len(across)), np.nan)
    for (a, b), one in zip(pairs, seen.facts, strict=True):
        table[down.index(a), across.index(b)] = one.logprob
    image = axes.imshow(table, cmap="Blues")
    axes.set_xticks(range(len(across)), across, size=9, color=INK.light)
    axes.set_yticks(range(len(down)), down, size=9, color=INK.light)
    axes.set_xlabel("second operand", color=MUTED.light, size=9.5)
    axes.set_ylabel("first operand", color=MUTED.light, size=9.5)
    bar: Any = axes.figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, colors=MUTED.light)


def _pairs(axes: Axes, found: Commutativity) -> None:
    """The cosine of A*B and B*A, operands across and down."""
    operands = list(
        dict.fromkeys(o for fact in found.facts.facts for o in (fact.operands or ("", "")))
    )
    table = np.full((len(operands), len(operands)), np.nan)
    for one in found.asymmetry.pairs:
        a, b = found.facts.facts[one.one].operands or ("", "")
        table[operands.index(b), operands.index(a)] = one.similarity
    far = max(0.2, float(np.nanmax(np.abs(table))))
    axes.imshow(table, cmap="RdBu_r", vmin=-far, vmax=far)
    for y, row in enumerate(table):
        for x, value in enumerate(row):
            if not np.isnan(value):
                ink = "#ffffff" if abs(value) > 0.65 * far else INK.light
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", size=8, color=ink)
    axes.set_xticks(range(len(operands)), operands, size=9, color=INK.light)
    axes.set_yticks(range(len(operands)), operands, size=9, color=INK.light)
    axes.set_xlabel("A", color=MUTED.light, size=9.5)
    axes.set_ylabel("B", color=MUTED.light, size=9.5)


def _lines(
    axes: Axes, xs: Sequence[int], series: Mapping[str, Any], colours: Mapping[str, str]
) -> None:
    """Lines whose names stand at their ends, moved apart where those are close."""
    axes.grid(axis="y", color=RULE.light, linewidth=0.7)
    axes.set_axisbelow(True)
    for name, values in series.items():
        axes.plot(xs, values, color=colours[name], linewidth=1.7)
    axes.set_xlim(xs[0], max(xs[-1], xs[0] + 1))
    axes.margins(y=0.06)
    low, high = axes.get_ylim()
    ends = [(float(values[-1]) - low) / (high - low or 1) for values in series.values()]
    gap = NAME * axes.figure.dpi / 72 / axes.bbox.height
    spots = drawing.spread(ends, gap=gap)
    for name, end, spot in zip(series, ends, spots, strict=True):
        axes.annotate(
            name,
            (1, end),
            (1.035, spot),
            xycoords="axes fraction",
            textcoords="axes fraction",
            size=9.5,
            va="center",
            color=colours[name],
            annotation_clip=False,
            # From where a line ends to its name, which may have made room for another.
            arrowprops={"arrowstyle": "-", "color": colours[name], "lw": 0.7, "shrinkB": 1},
        )


def _strip(axes: Axes, colours: Sequence[str]) -> None:
    axes.bar(range(len(colours)), [1] * len(colours), width=0.92, color=colours)
    axes.set_xlim(-0.5, len(colours) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)


def _keys(
    figure: Figure, colours: Mapping[str, str], at: tuple[float, float], whole: tuple[float, float]
) -> None:
    """Squares with names beside them, from left to right."""
    from matplotlib.patches import Rectangle

    x = at[0]
    for name, colour in colours.items():
        corner = (x / whole[0], 1 - (at[1] + 9) / whole[1])
        figure.add_artist(Rectangle(corner, 10 / whole[0], 10 / whole[1], color=colour, lw=0))
        beside = (x + 15) / whole[0]
        figure.text(
            beside, 1 - (at[1] + 4) / whole[1], name, size=9, color=MUTED.light, va="center"
        )
        x += 30 + 5.6 * len(name)


# -- paper -------------------------------------------------------------------------------------

WIDE, TALL = 470, 400
"Points that a panel takes in a grid."


def _grid(title: str, parts: Sequence[tuple[str, Callable[[Axes], None]]], path: Path) -> None:
    """Panels two in a row below a title."""
    across = min(2, len(parts))
    whole = (WIDE * across, 44 + TALL * -(-len(parts) // across))
    with drawing.paper(*whole, path.name) as figure:
        _title(figure, title, whole)
        for i, (name, draw) in enumerate(parts):
            left, top = WIDE * (i % across), 44 + TALL * (i // across)
            box = (left + 92, top + 34, WIDE - 92 - 100, TALL - 34 - 74)
            axes = _axes(figure, box, whole)
            at: dict[str, Any] = {"va": "top", "weight": "bold", "size": 10.5, "color": INK.light}
            figure.text((left + 14) / whole[0], 1 - (top + 8) / whole[1], name, **at)
            draw(axes)
        _save(figure, path)


def _title(figure: Figure, text: str, whole: tuple[float, float]) -> None:
    figure.patch.set_facecolor("#ffffff")
    at: dict[str, Any] = {"va": "top", "weight": "bold", "size": 12.5, "color": INK.light}
    lines = textwrap.wrap(text, int(whole[0] / 7.8), max_lines=2, placeholder=" …")
    figure.text(14 / whole[0], 1 - 12 / whole[1], "\n".join(lines), **at)


def _axes(figure: Figure, box: Box, whole: tuple[float, float]) -> Axes:
    left, top, width, height = box
    axes = figure.add_axes(
        (left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1])
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE.light)
    axes.tick_params(length=0, colors=MUTED.light, labelsize=9)
    return axes


def _save(figure: Figure, path: Path) -> None:
    try:
        # Without a date or a version the same numbers give the same file.
        figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    except OSError as error:
        raise StoreError(f"{path} could not be written: {error.strerror or error}") from error


def _every(count: int) -> list[int]:
    step = max(1, -(-count // 12))
    return list(range(0, count, step))


def _numbered(found: Trace) -> list[tuple[int, str]]:
    return list(enumerate(found.tokens))
