"""The comparison with EasyEdit as the tables of a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.easyedit import BARE, METHODS, OURS, SETTINGS, THEIRS, UNRELATED, chosen
from engram_transformers.evaluation.metrics import Measure, mean, rate, ratio

Row = dict[str, Any]
Score = Callable[[Row], float]


def _kept(name: str) -> Score:
    return lambda row: sum(row[name]) / len(row[name])


def _said(wording: str, name: str) -> Score:
    return lambda row: float(row[wording][name])


SCORES: dict[str, Score] = {
    "forced, taught": _said("taught", "forced"),
    "forced, reworded": _said("reworded", "forced"),
    "answer first, taught": _said("taught", "first"),
    "answer first, reworded": _said("reworded", "first"),
    "exact and stop, taught": _said("taught", "exact"),
    "exact and stop, reworded": _said("reworded", "exact"),
    "unrelated answers kept": _kept("kept"),
    "unrelated logits bit-equal": _kept("bit_equal"),
}
COUNTED = ("answer first", "exact and stop")
"Scores of which each fact has one, yes or no."


def tables(stored: Row) -> str:
    """Scores and times of each method, what was tried, and where it comes from."""
    pairs = {method: _pairs(stored, method) for method in METHODS}
    pairs = {method: pair for method, pair in pairs.items() if pair[0]}
    if not pairs:
        return "not measured yet"
    parts = [_scores(stored["edits"], pairs), _less(pairs), _times(pairs), _undone(stored)]
    return "\n\n".join([*parts, _tried(stored["tried"]), _origin(stored)])


def _pairs(stored: Row, method: str) -> tuple[list[Row], list[Row]]:
    """Ours and theirs of the facts that both have edited, in one order."""
    done = [row for row in stored["edits"] if (row["method"], row["side"]) == (method, OURS)]
    if not done:
        return [], []
    # Of ours those with the defaults that it had last.
    settings = {OURS: done[-1]["setting"], THEIRS: chosen(stored["tried"], method)}
    ours, theirs = (
        {row["fact"]: row for row in stored["edits"] if _is(row, method, side, setting)}
        for side, setting in settings.items()
    )
    both = [fact for fact in ours if fact in theirs]
    return [ours[fact] for fact in both], [theirs[fact] for fact in both]


def _is(row: Row, method: str, side: str, setting: Row | None) -> bool:
    return (row["method"], row["side"], row["setting"]) == (method, side, setting)


def _scores(edits: Sequence[Row], pairs: dict[str, tuple[list[Row], list[Row]]]) -> str:
    lines = [_line(["method", "by", "facts", *SCORES]), "|---" * (3 + len(SCORES)) + "|"]
    bare = [row for row in edits if row["side"] == BARE]
    lines.append(_line(["none", BARE, str(len(bare)), *_cells(bare)]))
    for method, (ours, theirs) in pairs.items():
        for side, rows in ((OURS, ours), (THEIRS, theirs)):
            lines.append(_line([method, side, str(len(rows)), *_cells(rows)]))
    return "\n".join(lines)


def _cells(rows: Sequence[Row]) -> list[str]:
    found = []
    for name, score in SCORES.items():
        values = [score(row) for row in rows]
        one = rate(map(bool, values)) if name.startswith(COUNTED) else mean(values)
        found.append(_measure(one))
    return found


def _less(pairs: dict[str, tuple[list[Row], list[Row]]]) -> str:
    lines = [_line([f"{OURS} less {THEIRS}, fact by fact", *SCORES])]
    lines.append("|---" * (1 + len(SCORES)) + "|")
    for method, (ours, theirs) in pairs.items():
        cells = [
            _measure(mean(score(a) - score(b) for a, b in zip(ours, theirs, strict=True)), sign="+")
            for score in SCORES.values()
        ]
        lines.append(_line([method, *cells]))
    return "\n".join(lines)


def _times(pairs: dict[str, tuple[list[Row], list[Row]]]) -> str:
    head = ["one edit", "facts"]
    for clock in ("processor", "wall"):
        head += [f"{clock} s, {OURS}", f"{clock} s, {THEIRS}", f"{clock}, times as long by theirs"]
    lines = [_line(head), "|---" * len(head) + "|"]
    for method, pair in pairs.items():
        ours, theirs = _in_turn(*pair)
        if not ours:
            continue
        cells = [method, str(len(ours))]
        for clock in ("processor", "wall"):
            own, others = ([row[clock] for row in rows] for rows in (ours, theirs))
            cells += [_spent(mean(own)), _spent(mean(others)), _spent(ratio(others, own))]
        lines.append(_line(cells))
    return "\n".join(lines)


def _in_turn(ours: Sequence[Row], theirs: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The facts that one run has edited on both sides: a machine's seconds are its day's."""
    both = [
        pair for pair in zip(ours, theirs, strict=True) if len({r["commit"] for r in pair}) == 1
    ]
    return [one for one, _ in both], [other for _, other in both]


def _undone(stored: Row) -> str:
    rows = [row for row in (*stored["tried"], *stored["edits"]) if row["side"] != BARE]
    back = sum(row["undone"] for row in rows)
    return (
        f"{UNRELATED} unrelated prompts beside each fact. After {back} of {len(rows)} edits the "
        "host had its own logits again, bit for bit."
    )


def _tried(tried: Sequence[Row]) -> str:
    """What was tried of theirs, on facts that are not scored."""
    names = ("forced, taught", "forced, reworded", "unrelated answers kept")
    head = [f"setting of {THEIRS}, tried", "blocks", "facts", *names, "processor s", "taken"]
    lines = [_line(head), "|---" * len(head) + "|"]
    for method in METHODS:
        for setting in SETTINGS[method]:
            rows = [row for row in tried if (row["method"], row["setting"]) == (method, setting)]
            if not rows:
                continue
            means = [f"{mean(SCORES[name](row) for row in rows).value:.2f}" for name in names]
            taken = "yes" if chosen(tried, method) == setting else ""
            blocks = ", ".join(map(str, rows[0]["hyper"]["layers"]))
            spent = f"{mean(row['processor'] for row in rows).value:.1f}"
            told = [_setting(method, setting), blocks, str(len(rows)), *means, spent, taken]
            lines.append(_line(told))
    return "\n".join(lines)


def _setting(method: str, setting: Row) -> str:
    changes = ", ".join(f"`{name}={value}`" for name, value in setting["changes"].items())
    return f"{method}, `{setting['of']}`" + (f" with {changes}" if changes else "")


def _origin(stored: Row) -> str:
    origins = list(stored["origins"].values())
    commits = ", ".join(f"`{one['commit']}`" for one in origins)
    ours, rows = origins[-1], [row for row in stored["edits"] if row["side"] == THEIRS]
    theirs = rows[-1]["origin"]
    return (
        f"Commit {commits}, {ours['date']}, {ours['machine']}, one thread each, the machine "
        f"shared; {ours['host']} in {ours['dtype']}, torch {ours['torch']}, transformers "
        f"{ours['transformers']}; EasyEdit `{theirs['easyedit']}`, torch {theirs['torch']}, "
        f"transformers {theirs['transformers']}, Python {theirs['python']}."
    )


def _measure(of: Measure, *, sign: str = "") -> str:
    return f"{of.value:{sign}.2f} <sub>{of.low:{sign}.2f} to {of.high:{sign}.2f}</sub>"


def _spent(of: Measure) -> str:
    return f"{of.value:.1f} <sub>{of.low:.1f} to {of.high:.1f}</sub>"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
