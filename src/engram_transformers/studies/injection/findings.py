"""What follows from the ways: tables, the first seed's verdicts beside what was measured, plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram_transformers.evaluation.metrics import Measure, contains, mean, rate, rate_of
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.studies.injection.facts import made_up
from engram_transformers.studies.injection.options import (
    ADDRESSED,
    CONTROLS,
    FIRST,
    ONE,
    REFERENCES,
    SEVERAL,
    SWEPT,
    TRAINED,
    WAYS,
)
from engram_transformers.studies.study import Findings, Heatmap, Row, Table, row

Parts = Sequence[dict[str, Any]]
Ways = Mapping[str, Parts]
"Measured units by way."

LOGPROB, EXACT, CONTAINS, ENDED, LOOPS = range(5)
"Where what stands in a case."
FAILING = ("empty slots", "random vectors", "keys and values of another fact", "late patch")
"Controls that have to fail, and one that is asked otherwise."
NOTES = (
    "Said exactly: what was generated, greedily and up to its natural end, equals the answer after "
    "normalisation. Among other words: what was generated holds it. Neither looks at the prompt.",
    "All routes ask in one form, behind the same four solved examples. The bare host is the row "
    "`nothing`; facts that it says by itself are left out everywhere.",
    "Intervals are over facts, with one host and one seed: Wilson's for shares, bootstrap for "
    "means.",
    "Layer, scale and position were chosen on facts that are not asked in the tables. The sweeps "
    "show the geometric mean of the probabilities of an answer's tokens, by block, by scale, and "
    "with the vectors before or behind the question (added: at all tokens, or from its end on).",
)


def findings(ways: Ways) -> Findings:
    """Tables and plots from the ways that are done."""
    known = _known(ways)
    asked = {way: _cases(parts, "asked", known) for way, parts in ways.items() if _has(parts)}
    held = {way: _cases(parts, "held", known) for way, parts in ways.items() if _has(parts)}
    tables = [
        _answers(
            "Asked as taught", asked,
            "The question that the fact was written with. Log-probability: of the whole answer and "
            "its end, in nats, mean over facts; the lookup memory stands in for the output and has "
            "none.",
        ),
        _answers(
            "Asked in held-out words", held,
            "Wordings that nothing was trained on and that are worded less like a form.",
        ),
        _verdicts(ways, asked, held),
        _controls(ways),
        _soft(asked, held, ways, known),
        _found(ways, known),
        _others(ways, asked, known),
        _elsewhere(ways),
        _patches(ways),
        _cost(ways),
    ]  # fmt: skip
    plots: list[Plot | Heatmap] = [_bars(asked, held), *_heatmaps(ways), *_late(ways)]
    shown = tuple(table for table in tables if table.rows)
    return Findings(shown, tuple(plots), (*_use(ways, asked, held), *NOTES, *_left(known)))


def _use(ways: Ways, asked: Mapping[str, Cases], held: Mapping[str, Cases]) -> Iterator[str]:
    """What a reader who wants to use one of these has to know, from the numbers alone."""
    null = held.get("random vectors") or held.get("nothing")
    tried = [way for way in WAYS if held.get(way) and way not in ("nothing", *FAILING)]
    if null:
        works = {way: _works(_said(held[way]), _said(null)) for way in tried}
        for verdict, words in ((True, "say"), (None, "may say"), (False, "do not say")):
            names = [
                f"{way} {_said(held[way]).value:.2f}" for way in tried if works[way] is verdict
            ]
            if names:
                yield f"In held-out words, these {words} facts more often than the control: " + (
                    "; ".join(names) + "."
                )
    one, several = _by_fact(held.get(ONE, ())), _by_fact(held.get(SEVERAL, ()))
    both = sorted(set(one) & set(several))
    if both:
        share, nats = (mean(several[f][at] - one[f][at] for f in both) for at in (1, 2))
        yield (
            f"Soft prompts trained on paraphrases against those trained on one question, in "
            f"held-out words, {len(both)} facts: {_gain(share)} of the answers said, "
            f"{_gain(nats)} nats of log-probability."
        )


def _gain(found: Measure) -> str:
    sure = "is not 0" if found.low > 0 or found.high < 0 else "may be 0"
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}, which {sure})"


def _has(parts: Parts) -> bool:
    return "asked" in parts[0]


def _known(ways: Ways) -> frozenset[str]:
    """Facts that the bare host says by itself."""
    found = set()
    for part in ways.get("nothing", ()):
        for cases in (part["asked"], *part["held"]):
            pairs = zip(part["facts"], cases, strict=True)
            found |= {name for name, case in pairs if case[EXACT] or case[CONTAINS]}
    return frozenset(found)


def _left(known: frozenset[str]) -> tuple[str, ...]:
    if not known:
        return ("The bare host says none of the facts by itself.",)
    return (f"Left out, since the bare host says them: {', '.join(sorted(known))}.",)


def _cases(parts: Parts, kind: str, known: frozenset[str]) -> list[tuple[str, list[Any]]]:
    """(fact, case) of a way."""
    found = []
    for part in parts:
        lists = part["held"] if kind == "held" else [part["asked"]]
        for cases in lists:
            found += [
                (name, case)
                for name, case in zip(part["facts"], cases, strict=True)
                if name not in known
            ]
    return found


Cases = Sequence[tuple[str, list[Any]]]


def _answers(title: str, ways: Mapping[str, Cases], about: str) -> Table:
    rows = [_answered(way, ways[way]) for way in WAYS if ways.get(way)]
    return Table(title, "share said exactly", tuple(rows), about)


def _answered(way: str, cases: Cases) -> Row:
    contained = rate(bool(case[CONTAINS] or case[EXACT]) for _, case in cases)
    logprobs = [case[LOGPROB] for _, case in cases if case[LOGPROB] is not None]
    more: dict[str, Any] = {
        "among other words": told(contained),
        "log-probability": told(mean(logprobs)) if logprobs else "",
        "ends by itself": told(rate(bool(case[ENDED]) for _, case in cases)),
    }
    exact = rate(bool(case[EXACT]) for _, case in cases)
    return row(way, exact, seeds=1, more=more)


def told(found: Measure) -> str:
    """A number with its interval, for a further column."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


# -- the seed's table ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Claim:
    """What the first seed concluded, and of which ways here."""

    name: str
    said: str
    ways: tuple[str, ...]
    works: bool
    "Whether the seed says that it works."


CLAIMS = (
    _Claim("hidden states before the question", "does not work", ("raw states", "chunks"), False),
    _Claim("hidden states added to activations", "does not work", ("added",), False),
    _Claim("mean of the states", "does not work", ("mean",), False),
    _Claim("last token's state", "does not work", ("last token",), False),
    _Claim("soft prompt on its own question", "works", (ONE, SEVERAL), True),
    _Claim("with the seed's loss, own question", "works", (FIRST,), True),
    _Claim("the fact as text", "works", ("text",), True),
    _Claim("retrieved text", "works", ("retrieved text",), True),
    _Claim("keys and values", "not tried", ("keys and values",), False),
)


def _verdicts(ways: Ways, asked: Mapping[str, Cases], held: Mapping[str, Cases]) -> Table:
    rows = [one for claim in CLAIMS for one in _verdict(claim, asked)]
    return Table(
        "The first seed's conclusions, measured",
        "share in which the answer is said, alone or among other words",
        (*rows, *_generalises(held)),
        "Each beside the host that is given random vectors (or nothing, where these were not run). "
        "*Works*: the lower end of its interval is above the upper end of that control's; *not "
        "clear*: only its value is. The seed "
        "tried one fact, and did not look at more than a few outputs.",
    )


def _verdict(claim: _Claim, asked: Mapping[str, Cases]) -> Iterator[Row]:
    for way in claim.ways:
        control = asked.get("random vectors") or asked.get("nothing")
        if not asked.get(way) or not control:
            continue
        own, null = _said(asked[way]), _said(control)
        works = _works(own, null)
        more = {
            "control": told(null),
            "the seed": claim.said,
            "measured": "not clear" if works is None else "works" if works else "does not work",
            "verdict": _judged(claim, works),
        }
        yield row(f"{claim.name}: {way}", own, seeds=1, more=more)


def _works(own: Measure, null: Measure) -> bool | None:
    """Whether a way is above its control; None where their intervals leave that open."""
    if own.low > null.high:
        return True
    return None if own.value > null.high else False


def _judged(claim: _Claim, works: bool | None) -> str:
    if claim.said == "not tried" or works is None:
        return "new" if claim.said == "not tried" else "open"
    return "confirmed" if works == claim.works else "overturned"


def _generalises(held: Mapping[str, Cases]) -> Iterator[Row]:
    control = held.get("random vectors") or held.get("nothing")
    for way in (ONE, SEVERAL):
        if held.get(way) and control:
            own, null = _said(held[way]), _said(control)
            works = _works(own, null)
            more = {
                "control": told(null),
                "the seed": "does not work in other words",
                "measured": "not clear" if works is None else "works" if works else "does not work",
                "verdict": "open" if works is None else "overturned" if works else "confirmed",
            }
            yield row(f"held-out wordings: {way}", own, seeds=1, more=more)


def _said(cases: Cases) -> Measure:
    return rate(bool(case[CONTAINS] or case[EXACT]) for _, case in cases)


# -- controls ------------------------------------------------------------------------------


def _controls(ways: Ways) -> Table:
    return Table(
        "Controls that have to pass",
        "share of the facts that come out as with the text",
        tuple(_passing(ways)),
        "Cached: the statement is read into a real key-value cache. Slots: every block is given, "
        "at placeholders, what it was given at the statement's tokens. Both against the statement "
        "as text in one pass. Late patch: states behind the named block of a host that reads the "
        "fact, put where the answer is chosen into one that reads placeholders; of the facts that "
        "the reading host says exactly, those that are said then.",
    )


def _passing(ways: Ways) -> Iterator[Row]:
    for part in ways.get("cached keys and values", ()):
        n = len(part["facts"])
        for name in ("cached", "slots"):
            far = max(part["differences"][name])
            more = {"largest change of a log-probability": f"{far:.2g} nats", "wanted": "1"}
            yield row(
                f"keys and values, {name}", rate_of(part["same"][name], n), seeds=1, more=more
            )
    for part in ways.get("late patch", ()):
        n = part["donors"][0]
        layer, best = max(part["layers"].items(), key=lambda one: (one[1]["own"], -int(one[0])))
        more = {"wanted": "0.9 at least"}
        yield row(f"late patch, behind block {layer}", rate_of(best["own"], n), seeds=1, more=more)


def _soft(
    asked: Mapping[str, Cases], held: Mapping[str, Cases], ways: Ways, known: frozenset[str]
) -> Table:
    """One question against several paraphrases, paired by fact."""
    rows: list[Row] = []
    for kind, cases in (("as taught", asked), ("held-out words", held)):
        one, several = _by_fact(cases.get(ONE, ())), _by_fact(cases.get(SEVERAL, ()))
        both = sorted(set(one) & set(several))
        for name, at in (("said exactly", 0), ("said at all", 1), ("log-probability", 2)):
            if both:
                gains = [several[f][at] - one[f][at] for f in both]
                more = {
                    "one question": told(mean(one[f][at] for f in both)),
                    "paraphrases": told(mean(several[f][at] for f in both)),
                }
                rows.append(row(f"{kind}: {name}", mean(gains), seeds=1, more=more))
    return Table(
        "Soft prompts: paraphrases against one question",
        "paraphrases minus one question",
        tuple(rows),
        "The same facts, starts, vectors and number of steps at most; a step is one wording. n "
        "counts facts; a fact's held-out wordings are averaged first.",
    )


def _by_fact(cases: Cases) -> dict[str, tuple[float, float, float]]:
    lists: dict[str, list[list[Any]]] = {}
    for name, case in cases:
        lists.setdefault(name, []).append(case)
    return {
        name: (
            sum(bool(c[EXACT]) for c in each) / len(each),
            sum(bool(c[EXACT] or c[CONTAINS]) for c in each) / len(each),
            sum(c[LOGPROB] for c in each) / len(each),
        )
        for name, each in lists.items()
    }


def _found(ways: Ways, known: frozenset[str]) -> Table:
    rows = []
    for way in (ADDRESSED, *TRAINED):
        parts = [part for part in ways.get(way, ()) if "fired" in part]
        cases = [
            (name, case, part["fired"][name])
            for part in parts
            for name, case in zip(part["facts"], part.get("found") or part["held"][0], strict=True)
            if name not in known
        ]
        if cases:
            hits = rate(bool(case[EXACT] or case[CONTAINS]) for _, case, _ in cases)
            more = {
                "the right fact was found": told(rate(name == hit for name, _, hit in cases)),
                "another one was": told(
                    rate(hit is not None and hit != name for name, _, hit in cases)
                ),
            }
            rows.append(row(way, hits, seeds=1, more=more))
    return Table(
        "Found by the lookup memory's address, then injected",
        "share in which the answer is said",
        tuple(rows),
        "Held-out wordings. The address knows the question and the wordings for training, of all "
        "facts for keys and values and of those of one unit for soft prompts. What it finds is "
        "injected; where it finds nothing, nothing is.",
    )


def _others(ways: Ways, asked: Mapping[str, Cases], known: frozenset[str]) -> Table:
    rows = []
    for way in (*TRAINED, *SWEPT):
        parts = [part for part in ways.get(way, ()) if "of another" in part]
        cases = [
            case
            for part in parts
            for name, case in zip(part["facts"], part["of another"], strict=True)
            if name not in known
        ]
        if cases:
            hits = rate(bool(case[EXACT] or case[CONTAINS]) for case in cases)
            more = {
                "the injected one is said instead": told(rate(_instead(parts, known))),
                "with its own": told(_said(asked[way])),
            }
            rows.append(row(way, hits, seeds=1, more=more))
    return Table(
        "Another fact's vectors",
        "share in which the answer is said",
        tuple(rows),
        "What was made of the next fact is injected, and the fact's own answer is looked for: it "
        "must not come. *The injected one instead*: the answer that was injected is said to a "
        "question that it does not answer; it should not be, where the vectors hold a fact and "
        "not just an answer.",
    )


def _instead(parts: Parts, known: frozenset[str]) -> Iterator[bool]:
    answers = {fact.subject: fact.answer for fact in made_up()}
    for part in parts:
        names = part["facts"]
        for name, after, case in zip(
            names, [*names[1:], *names[:1]], part["of another"], strict=True
        ):
            if name not in known and answers.get(name) != answers.get(after):
                yield contains(case[-1], answers.get(after, "-"))


def _elsewhere(ways: Ways) -> Table:
    rows = []
    for way in WAYS:
        parts = [part["elsewhere"] for part in ways.get(way, ()) if part.get("elsewhere")]
        if parts:
            found = {
                name: _pooled([part[name] for part in parts if name in part])
                for name in ("general", "other facts")
            }
            other = found["other facts"]
            more = {"other facts' questions": told(other) if other.n else ""}
            rows.append(row(way, found["general"], seeds=1, more=more))
    return Table(
        "What else changes",
        "share of general questions that are answered as by the bare host",
        tuple(rows),
        "A fact is injected and something else is asked, word for word the same answer counts. A "
        "memory with an address (`lookup memory`, and kinds `activation` and `soft_prompt`) "
        "injects nothing into what it was not taught, bit for bit.",
    )


def _pooled(counts: Sequence[Sequence[int]]) -> Measure:
    return rate_of(sum(one[0] for one in counts), sum(one[1] for one in counts))


def _patches(ways: Ways) -> Table:
    rows = [
        row(
            f"behind block {layer}",
            rate_of(hits["own"], part["donors"][0]),
            seeds=1,
            more={"of another fact": told(rate_of(hits["of another"], part["donors"][0]))},
        )
        for part in ways.get("late patch", ())
        for layer, hits in part["layers"].items()
    ]
    return Table(
        "From which block on a patch carries the answer",
        "share of the facts that are said as by the host that reads them",
        tuple(rows),
        "At the last token of the prompt and at every token of the answer.",
    )


def _cost(ways: Ways) -> Table:
    rows = []
    for way in WAYS:
        parts = [part for part in ways.get(way, ()) if "seconds an answer" in part]
        if parts:
            seconds = mean(part["seconds an answer"] for part in parts)
            more = {
                "tokens before the question": round(_average(parts, "tokens"), 1),
                "stored vectors a fact": round(_average(parts, "vectors"), 1),
                "seconds to write a fact": round(_average(parts, "seconds a fact"), 2),
                "chosen block, scale, behind": _best(parts),
            }
            value = Measure(seconds.value, seconds.value, seconds.value, seconds.n)
            rows.append(row(way, value, seeds=1, more=more))
    return Table(
        "Cost",
        "seconds an answer, in batches",
        tuple(rows),
        "On whatever else the machine was doing: an order of magnitude. An answer that comes at "
        "once is not generated a second time, so ways that work take less.",
    )


def _average(parts: Parts, name: str) -> float:
    return float(sum(part.get(name, 0) for part in parts)) / len(parts)


def _best(parts: Parts) -> str:
    best = parts[0].get("best")
    return f"{best[0]}, {best[1]:g}, {'yes' if best[2] else 'no'}" if best else ""


# -- plots ---------------------------------------------------------------------------------


def _bars(asked: Mapping[str, Cases], held: Mapping[str, Cases]) -> Plot:
    panels = tuple(
        Panel(
            title,
            "share",
            tuple(
                Series(way, ((float(i), _said(cases[way])),), way in (*CONTROLS, *REFERENCES))
                for i, way in enumerate(WAYS)
                if cases.get(way)
            ),
        )
        for title, cases in (("asked as taught", asked), ("held-out words", held))
    )
    return Plot("said", "Answers that are said, alone or among other words", panels)


def _heatmaps(ways: Ways) -> Iterator[Heatmap]:
    for way in SWEPT:
        for part in ways.get(way, ()):
            grid = part["grid"]
            layers = sorted({one[0] for one in grid})
            scales = sorted({one[1] for one in grid})
            names = _places(way)
            value = {tuple(one[:3]): math.exp(one[3]) for one in grid}
            yield Heatmap(
                f"sweep-{way.replace(' ', '-')}",
                f"Sweep: {way}",
                tuple(f"block {layer}" for layer in layers),
                tuple(f"{names[p]} {scale:g}" for p in (False, True) for scale in scales),
                tuple(
                    tuple(value[layer, scale, p] for layer in layers)
                    for p in (False, True)
                    for scale in scales
                ),
            )


def _places(way: str) -> dict[bool, str]:
    if way == "added":
        return {False: "all", True: "end"}
    return {False: "before", True: "behind"}


def _late(ways: Ways) -> Iterator[Plot]:
    for part in ways.get("late patch", ()):
        n = part["donors"][0]
        series = tuple(
            Series(
                name,
                tuple((float(k), rate_of(v[name], n)) for k, v in part["layers"].items()),
                control=name != "own",
            )
            for name in ("own", "of another")
        )
        panel = Panel("transferred", "share", series, "block", lines=True)
        yield Plot("late-patch", "Answers carried by a patch behind a block", (panel,))
