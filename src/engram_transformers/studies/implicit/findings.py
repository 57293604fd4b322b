"""What follows from the runs: losses, recall, influence, usage, sweeps, the seed's measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.studies.estimates import over_runs, share_over_runs
from engram_transformers.studies.implicit.options import MEMORIES, NONE, WHOLE, Options
from engram_transformers.studies.study import Done, Findings, Heatmap, Row, Table, row

NATS = "nats a token"
SHARE = "share of the answers that are said in full"
READ = {"own": "own slots", "emptied": "slots emptied", "another's": "another text's slots"}
CONDITIONS = {"right": "right memory", "empty": "empty memory", "wrong": "wrong memory"}
Runs = dict[int, dict[str, Any]]
"By seed."


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """Tables and plots of what is done."""
    tables: list[Table] = []
    plots: list[Plot | Heatmap] = []
    notes: list[str] = []
    for text in options.texts:
        runs = _by_variant(done, text)
        tables += [make(text, runs) for make in (_losses, _against, _needles)]
        notes += _verdicts(text, runs)
        plots += [plot for plot in (_distances(text, runs), _heatmap(text, runs)) if plot]
    tables += [_inside(options, done), _sweep(options, done), _similarities(options, done)]
    plots += [
        plot
        for make in (_influence, _patterns, _best)
        if (plot := make(options, done)) and plot.panels
    ]
    kept = tuple(table for table in tables if table.rows)
    return Findings(kept, tuple(plots), (*notes, *NOTES))


NOTES = (
    "`none`, the memories and their controls see one window at a time; `whole text` is the same "
    "decoder with attention over all windows, trained on the same texts. Positions start anew in "
    "each window but not in the whole text.",
    "Repeats are tokens that an earlier window said behind the same words and this window did not "
    "yet: things that are kept (`entities`), last of six characters in a row (`tinyshakespeare`).",
    "Wrong memory: the same text with another thing, or another fact, in the needle's place. The "
    "answer asked for is the same in all conditions, and no needle's pair was trained: who keeps "
    "what is drawn anew for each text.",
    "Intervals are Student's over seeds; each seed draws weights and texts to learn, and all "
    "seeds read the same held-out texts and needles.",
    "The seed's similarity is not recall: it is measured of the original's formula alone, beside "
    "what it is of nets that nobody trained, of random tokens and after another fact.",
)


def _by_variant(done: Sequence[Done], text: str, change: str = "") -> dict[str, Runs]:
    found: dict[str, Runs] = {}
    for one in done:
        own = one.unit.settings
        if (own["text"], own["change"]) == (text, change):
            found.setdefault(own["variant"], {})[own["seed"]] = one.measured
    return found


def _line(
    name: str, runs: Runs, value: Callable[[dict[str, Any]], float], n: int, **more: Any
) -> Row:
    return _row(name, over_runs([value(run) for run in runs.values()]), runs, n, more)


def _share_line(
    name: str, runs: Runs, value: Callable[[dict[str, Any]], float], n: int, **more: Any
) -> Row:
    return _row(name, share_over_runs([value(run) for run in runs.values()]), runs, n, more)


def _row(name: str, found: Measure, runs: Runs, n: int, more: dict[str, Any]) -> Row:
    return row(name, found, n=n, seeds=len(runs), more=more)


def _mean(runs: Runs, value: Callable[[dict[str, Any]], float]) -> float:
    return round(over_runs([value(run) for run in runs.values()]).value, 4)


# -- losses --------------------------------------------------------------------------------


def _losses(text: str, runs: dict[str, Runs]) -> Table:
    rows = []
    for variant, own in runs.items():
        one = next(iter(own.values()))
        for how in one["losses"]:
            name = variant if variant not in MEMORIES else f"{variant}, {READ[how]}"
            others = _mean(own, lambda run, how=how: run["losses"][how]["others"])  # type: ignore[misc]
            rows.append(
                _line(
                    name,
                    own,
                    lambda run, how=how: run["losses"][how]["repeats"],  # type: ignore[misc]
                    one["tokens"]["repeats"],
                    **{"other tokens": others},
                )
            )
    about = "On held-out tokens that repeat what an earlier window said; n counts them."
    return Table(f"{text}: held-out loss on repeats", NATS, tuple(rows), about)


def _against(text: str, runs: dict[str, Runs]) -> Table:
    base, rows = runs.get(NONE, {}), []
    for variant, own in runs.items():
        both = {seed: run for seed, run in own.items() if seed in base}
        if variant == NONE or not both:
            continue
        less = {
            seed: {
                group: run["losses"]["own"][group] - base[seed]["losses"]["own"][group]
                for group in ("repeats", "others")
            }
            for seed, run in both.items()
        }
        n = next(iter(both.values()))["tokens"]["repeats"]
        others = _mean(less, lambda run: run["others"])
        rows.append(_line(variant, less, lambda run: run["repeats"], n, **{"other tokens": others}))
    about = (
        "Each run less the net without a memory of the same seed, which read the same texts; below "
        "zero is better."
    )
    return Table(f"{text}: difference to no memory, on repeats", NATS, tuple(rows), about)


# -- needles -------------------------------------------------------------------------------


def _needles(text: str, runs: dict[str, Runs]) -> Table:
    rows = []
    for variant, own in runs.items():
        for name, words in _conditions(variant).items():
            needles = next(iter(own.values()))["needles"]
            by_distance = {
                f"{each['distance']} windows": _mean(own, _said(name, each["distance"]))
                for each in needles
            }
            more = {**by_distance, "log-probability": _mean(own, _logs(name))}
            n = sum(each["n"] for each in needles)
            rows.append(_share_line(f"{variant}, {words}", own, _said(name), n, **more))
    about = (
        "Greedy; asked so many windows after the needle, over all distances and at each. "
        "Log-probability: of the answer, nats a token."
    )
    return Table(f"{text}: needles recalled", SHARE, tuple(rows), about)


def _conditions(variant: str) -> dict[str, str]:
    if variant in MEMORIES:
        return CONDITIONS
    return {"right": "text in the context" if variant == WHOLE else "nothing to read from"}


def _said(name: str, distance: int | None = None) -> Callable[[dict[str, Any]], float]:
    def value(run: dict[str, Any]) -> float:
        some = [one for one in run["needles"] if distance in (None, one["distance"])]
        return float(sum(one[name]["said"] for one in some) / sum(one["n"] for one in some))

    return value


def _logs(name: str) -> Callable[[dict[str, Any]], float]:
    def value(run: dict[str, Any]) -> float:
        found = [one[name]["log-probability"] for one in run["needles"]]
        return float(sum(found) / len(found))

    return value


def _verdicts(text: str, runs: dict[str, Runs]) -> Iterator[str]:
    """What the numbers say, said by them."""
    base = runs.get(NONE, {})
    for variant in (name for name in runs if name in MEMORIES):
        own = runs[variant]
        both = [seed for seed in own if seed in base]
        parts = []
        if len(both) > 1:
            less = over_runs([
                own[s]["losses"]["own"]["repeats"] - base[s]["losses"]["own"]["repeats"]
                for s in both
            ])  # fmt: skip
            word = "lower" if less.high < 0 else "higher" if less.low > 0 else "no other"
            parts.append(f"{word} loss on repeats than without it ({_told(less)} nats)")
        if len(own) > 1:
            said = {
                name: share_over_runs([_said(name)(run) for run in own.values()])
                for name in CONDITIONS
            }
            above = said["right"].low > max(said["empty"].high, said["wrong"].high)
            verb = "recalls" if above else "does not recall"
            told = ", ".join(f"{words} {_told(said[n])}" for n, words in CONDITIONS.items())
            parts.append(f"it {verb} needles above both the empty and the wrong memory ({told})")
        if parts:
            yield f"**{text}, {variant}**: {'; '.join(parts)}."


def _told(found: Measure) -> str:
    return f"{found.value:.2f}, {found.low:.2f} to {found.high:.2f}"


def _distances(text: str, runs: dict[str, Runs]) -> Plot | None:
    series = []
    for variant, own in runs.items():
        for name, words in _conditions(variant).items():
            if name == "wrong" or variant == NONE:
                continue
            distances = [each["distance"] for each in next(iter(own.values()))["needles"]]
            points = tuple(
                (float(d), share_over_runs([_said(name, d)(run) for run in own.values()]))
                for d in distances
            )
            control = name != "right" or variant == WHOLE
            series.append(Series(f"{variant}, {words}", points, control=control))
    if not series:
        return None
    panel = Panel(f"{text}: answers said in full", "", tuple(series), "windows since", lines=True)
    return Plot(f"needles-{text}", "Needles over distance", (panel,))


# -- inside --------------------------------------------------------------------------------


def _with_slots(options: Options, done: Sequence[Done]) -> Iterator[tuple[str, str, Runs]]:
    for text in options.texts:
        for variant, runs in _by_variant(done, text).items():
            if variant in MEMORIES:
                yield text, variant, runs


def _inside(options: Options, done: Sequence[Done]) -> Table:
    rows = []
    for text, variant, runs in _with_slots(options, done):
        names = ("read entropy", "write entropy", "dead", "cosine", "read")
        more: dict[str, Any] = {n: _mean(runs, lambda run, n=n: run["usage"][n]) for n in names}  # type: ignore[misc]
        more["influence, other tokens"] = _mean(runs, lambda run: run["influence"]["others"])
        one = next(iter(runs.values()))
        more["parameters"] = f"{one['of the memory']:,} of {one['parameters']:,}"
        n = one["tokens"]["repeats"]
        rows.append(
            _line(f"{text}, {variant}", runs, lambda run: run["influence"]["repeats"], n, **more)
        )
    about = (
        "Influence: Kullback-Leibler divergence of what is said with the slots from what is said "
        "with empty ones, on repeats. Slots by their real weights, in the last window: entropies "
        "are shares of the largest possible; dead slots are read less than a hundredth of the "
        "mean; cosine is that of two slots' contents; read is the weight that goes to slots rather "
        "than to nothing. The original has no such choice, so its slots' softmax is shown."
    )
    return Table("Influence and usage of the slots", NATS, tuple(rows), about)


def _influence(options: Options, done: Sequence[Done]) -> Plot:
    panels = []
    for text in options.texts:
        of_text = [(v, runs) for name, v, runs in _with_slots(options, done) if name == text]
        for group, told in (("repeats", "repeats"), ("others", "other tokens")):
            found = {v: [run["influence"][group] for run in runs.values()] for v, runs in of_text}
            series = tuple(Series(v, ((0.0, over_runs(each)),)) for v, each in found.items())
            if series:
                panels.append(Panel(f"{text}, {told}: nats", "", series))
    title = "What the slots change in what is said: KL divergence"
    return Plot("context_influence", title, tuple(panels))


def _heatmap(text: str, runs: dict[str, Runs]) -> Heatmap | None:
    """Of the first seed and the first memory that has real reads."""
    for variant in (name for name in MEMORIES if name in runs and 0 in runs[name]):
        used = runs[variant][0]["usage"]
        return Heatmap(
            "slot_usage_heatmap" if text == "entities" else f"slot_usage_heatmap-{text}",
            f"{text}, {variant}: weights of reads and writes, the largest = 1",
            tuple(str(number) for number in range(len(used["reads"]))),
            ("reads", "writes"),
            (tuple(used["reads"]), tuple(used["writes"])),
        )
    return None


# -- sweeps --------------------------------------------------------------------------------


def _swept(options: Options, done: Sequence[Done]) -> list[tuple[str, Runs]]:
    text = options.texts[0]
    found = {
        change: _by_variant(done, text, change).get("slots", {}) for change in ("", *options.sweep)
    }
    return [(change or "as it is", runs) for change, runs in found.items() if runs]


def _sweep(options: Options, done: Sequence[Done]) -> Table:
    found = _swept(options, done)
    rows = [
        _share_line(
            name,
            runs,
            _said("right"),
            sum(each["n"] for each in next(iter(runs.values()))["needles"]),
            **{
                "wrong memory": _mean(runs, _said("wrong")),
                "loss on repeats": _mean(runs, lambda run: run["losses"]["own"]["repeats"]),
                "last distance": _mean(runs, _said("right", options.windows - 1)),
            },
        )
        for name, runs in found
        if len(found) > 1
    ]
    about = "One option of the variant `slots` changed at a time, each trained anew."
    return Table(f"{options.texts[0]}: options of the slots, needles recalled", SHARE, tuple(rows),
                 about)  # fmt: skip


def _best(options: Options, done: Sequence[Done]) -> Plot:
    found = _swept(options, done)
    series = tuple(
        Series(name, ((0.0, share_over_runs([_said("right")(run) for run in runs.values()])),))
        for name, runs in found
    )
    panels = (Panel("needles recalled, by option", "", series),) if len(series) > 1 else ()
    return Plot("optimal_config_results", "Options of the slots", panels)


# -- the seed's similarity -----------------------------------------------------------------


def _similar(options: Options, done: Sequence[Done]) -> Iterator[tuple[str, Runs]]:
    for text, variant, runs in _with_slots(options, done):
        if variant == "original":
            yield text, runs


def _similarities(options: Options, done: Sequence[Done]) -> Table:
    rows = []
    for text, runs in _similar(options, done):
        for state in ("untrained", "trained"):
            for what in ("text", "random tokens", "the fact", "another fact"):
                last = lambda run, s=state, w=what: _end(run["similarity"][s][w])  # noqa: E731
                rows.append(_line(f"{text}, {state} net, {what}", runs, last, 16))
    about = (
        "**Not recall.** The seed's measure, of the original's formula: the mean cosine of slots "
        "and the mean state of a window; after twenty windows, and between a question's states and "
        "slots that have read the fact or another one."
    )
    return Table("Pattern similarity beside its null", "mean cosine", tuple(rows), about)


def _end(found: Any) -> float:
    return float(found[-1] if isinstance(found, list) else found)


def _patterns(options: Options, done: Sequence[Done]) -> Plot:
    panels = []
    for text, runs in _similar(options, done):
        series = []
        for state in ("trained", "untrained"):
            for what in ("text", "random tokens"):
                lists = [run["similarity"][state][what] for run in runs.values()]
                points = tuple(
                    (float(at + 1), over_runs([each[at] for each in lists]))
                    for at in range(len(lists[0]))
                )
                control = state == "untrained" or what != "text"
                series.append(Series(f"{state} net, {what}", points, control=control))
        panels.append(
            Panel(f"{text}: mean cosine, not recall", "", tuple(series), "windows read", lines=True)
        )
    return Plot("pattern_similarity", "The seed's similarity beside its null", tuple(panels))
