"""What is measured of each way: answers, wordings that were held out, what else changes, cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from engram_transformers.evaluation.task import Question
from engram_transformers.memories.shared.behind import Steps
from engram_transformers.memories.shared.encoders import open_encoder
from engram_transformers.memories.shared.soft import Lesson, start, train
from engram_transformers.studies.injection import routes
from engram_transformers.studies.injection.asking import Heard
from engram_transformers.studies.injection.facts import GENERAL, MadeUp, chosen
from engram_transformers.studies.injection.options import FIRST, SEVERAL, Options
from engram_transformers.studies.injection.routes import Bench, Given, Route
from engram_transformers.studies.trained import answers, fresh
from engram_transformers.types import Told

Measured = dict[str, Any]
PATCHED = (12, 18, 24, 29)
"Blocks behind which the late patch is tried."
CACHED, READ = 13, 34
"Facts of the controls: what is read one by one, and what is patched at every block, takes long."
ENOUGH = 0.9
"Probability of every token of the answer from which a wording counts as sure."


def measure_route(bench: Bench, route: Route, options: Options, told: Told) -> Measured:
    """Ask every fact, and other things, through one route."""
    _, facts = chosen(tuned=options.tuned, facts=options.facts)
    return heard(bench, route, facts, options, told)


def heard(
    bench: Bench, route: Route, facts: Sequence[MadeUp], options: Options, told: Told
) -> Measured:
    """What the host says with a route, as asked, in held-out words and about other things."""
    began = time.perf_counter()
    found: Measured = {"facts": [fact.subject for fact in facts]}
    found["asked"] = plain(bench.ask(facts, route, routes.asked))
    told("asking", len(facts), None)
    seconds = (time.perf_counter() - began) / len(facts)
    found["held"] = [plain(bench.ask(facts, route, routes.held(i))) for i in range(options.held)]
    told("asking", len(facts) * options.held, None)
    given = [route(fact) for fact in facts]
    found["tokens"] = sum(len(one.ids) for one in given) / len(given)
    found["vectors"] = sum(_vectors(one) for one in given) / len(given)
    found["seconds an answer"] = round(seconds, 3)
    found["elsewhere"] = elsewhere(bench, route, facts, options.others)
    told("asking", 2 * options.others, None)
    return found


def elsewhere(bench: Bench, route: Route, facts: Sequence[MadeUp], count: int) -> Measured:
    """[same answer, asked]: another fact's question, and general ones, with a fact injected."""
    some = facts[:count]
    others = [fact.question for fact in (*facts[1:], facts[0])][: len(some)]
    found = {}
    for name, questions in (("other facts", others), ("general", GENERAL[: len(some)])):
        pairs = list(zip(some, questions, strict=False))
        before = bench.bare(questions)
        now = [bench.case(fact, q, route(fact)) for fact, q in pairs]
        after = [one.said for one in bench.asking.ask(now)]
        same = sum(a == b for a, b in zip(before, after, strict=True))
        found[name] = [same, len(pairs)]
    return found


def plain(cases: Sequence[Heard]) -> list[list[Any]]:
    return [one.plain() for one in cases]


def _vectors(given: Given) -> int:
    """How many vectors of the host's width a fact takes."""
    one = given.injected
    parts = [x for x in (one.slots, one.added, one.late) if x is not None]
    return sum(x.numel() // x.shape[-1] for x in parts)


# -- references ----------------------------------------------------------------------------


def retrieved(bench: Bench, options: Options, told: Told) -> Measured:
    """The three nearest statements of all as text; the others are the distractors."""
    tuning, facts = chosen(tuned=options.tuned, facts=options.facts)
    store = [*tuning, *facts]
    encoder = open_encoder("minilm", adapter=bench.adapter, tokens=bench.tokens, written_by=None)
    vectors = torch.from_numpy(encoder.encode([fact.statement for fact in store]))
    hits = {"first": 0, "among three": 0, "asked": 0}

    def near(question: str, fact: MadeUp) -> Given:
        scores = vectors @ torch.from_numpy(encoder.encode([question]))[0]
        best = scores.topk(3).indices.tolist()
        hits["asked"] += 1
        hits["first"] += store[best[0]] is fact
        hits["among three"] += any(store[i] is fact for i in best)
        return Given(bench.form.text(" ".join(store[i].statement for i in reversed(best))))

    found: Measured = {"facts": [fact.subject for fact in facts]}
    began = time.perf_counter()
    for name, wording in (("asked", routes.asked), ("held", routes.held(0))):
        cases = [bench.case(f, wording(f), near(wording(f), f)) for f in facts]
        said = plain(bench.asking.ask(cases))
        found[name] = said if name == "asked" else [said]
        told("asking", len(facts), None)
    found["seconds an answer"] = round((time.perf_counter() - began) / 2 / len(facts), 3)
    found["tokens"] = sum(len(near(f.question, f).ids) for f in facts) / len(facts)
    found["retrieved"] = dict(hits)
    some = facts[: options.others]
    found["elsewhere"] = {}
    for name, questions in (("general", GENERAL[: len(some)]),):
        now = [bench.case(some[0], q, near(q, some[0])) for q in questions]
        pairs = zip(bench.bare(questions), bench.asking.ask(now), strict=True)
        found["elsewhere"][name] = [sum(a == b.said for a, b in pairs), len(questions)]
    found["vectors"] = 0
    return found


def looked_up(bench: Bench, options: Options, told: Told) -> Measured:
    """A lookup memory that was taught all facts, asked as users ask it."""
    _, facts = chosen(tuned=options.tuned, facts=options.facts)
    host = bench.host
    found: Measured = {"facts": [fact.subject for fact in facts], "tokens": 0, "vectors": 0}
    general = list(GENERAL[: options.others])
    before = host.ask_all(general, max_new_tokens=12)
    with fresh(host, "lookup") as memory:
        taught = [fact.taught() for fact in facts]
        began = time.perf_counter()
        memory.add(zip((f.id for f in taught), taught, memory.write(taught), strict=True))
        found["seconds a fact"] = round((time.perf_counter() - began) / len(facts), 3)
        began = time.perf_counter()
        pairs = list(zip(facts, taught, strict=True))
        for name, wording in (("asked", routes.asked), ("held", routes.held(0))):
            questions = [Question.about(fact, wording(one)) for one, fact in pairs]
            said = _answered(answers(host, questions, told))
            found[name] = said if name == "asked" else [said]
        found["seconds an answer"] = round((time.perf_counter() - began) / 2 / len(facts), 3)
        after = host.ask_all(general, max_new_tokens=12)
    same = sum(a == b for a, b in zip(before, after, strict=True))
    found["elsewhere"] = {"general": [same, len(general)]}
    return found


def _answered(cases: Any) -> list[list[Any]]:
    """As `Heard.plain`, without a probability: this memory stands in for the output."""
    return [
        [None, int(c.exact), int(c.contains or c.exact), int(c.ended), int(not c.ended), c.said]
        for c in cases
    ]


def addressed(bench: Bench, options: Options, told: Told) -> Measured:
    """Keys and values of the fact that the lookup memory's address finds, of all that are asked."""
    _, facts = chosen(tuned=options.tuned, facts=options.facts)
    route = routes.keys_and_values(bench)
    measured: Measured = {"facts": [fact.subject for fact in facts]}
    began = time.perf_counter()
    for name, wording in (("asked", routes.asked), ("held", routes.held(0))):
        by_address, fired = routes.found(bench, facts, route, wording)
        said = plain(bench.ask(facts, by_address, wording))
        measured[name] = said if name == "asked" else [said]
        measured["fired"] = fired
        told("asking", len(facts), None)
    measured["seconds an answer"] = round((time.perf_counter() - began) / 2 / len(facts), 3)
    given = [route(fact) for fact in facts]
    measured["tokens"] = sum(len(one.ids) for one in given) / len(given)
    measured["vectors"] = sum(_vectors(one) for one in given) / len(given)
    address, some = bench.address(facts), GENERAL[: options.others]
    silent = sum(address.decide(question).value is None for question in some)
    # Where nothing fires nothing is given, and the prompt is the bare one.
    measured["elsewhere"] = {"general": [silent, len(some)]}
    return measured


# -- controls ------------------------------------------------------------------------------


def cached(bench: Bench, options: Options, told: Told) -> Measured:
    """The statement read into a real cache, behind which questions are asked.

    Beside it, how far its log-probabilities, and those of states put into slots, are from those of
    the statement as text in one pass.
    """
    _, every = chosen(tuned=options.tuned, facts=options.facts)
    facts = every[:CACHED]
    as_text = bench.ask(facts, routes.text(bench), routes.asked)
    in_slots = bench.ask(facts, routes.keys_and_values(bench), routes.asked)
    told("asking", 2 * len(facts), None)
    found: Measured = {"facts": [fact.subject for fact in facts], "asked": [], "held": [[]]}
    began = time.perf_counter()
    for fact in facts:
        asking = bench.asking.after(bench.form.text(fact.statement))
        cases = [bench.case(fact, q, Given(), read=True) for q in (fact.question, fact.held_out[0])]
        first, second = plain(asking.ask(cases))
        found["asked"].append(first)
        found["held"][0].append(second)
        told("asking", 2, None)
    found["seconds an answer"] = round((time.perf_counter() - began) / 2 / len(facts), 3)
    found["tokens"] = 0
    states = [bench.inputs(fact.statement) for fact in facts]
    found["vectors"] = sum(s.shape[0] * s.shape[1] for s in states) / len(states)
    found["differences"] = {
        "cached": [abs(a[0] - b.logprob) for a, b in zip(found["asked"], as_text, strict=True)],
        "slots": [abs(a.logprob - b.logprob) for a, b in zip(in_slots, as_text, strict=True)],
    }
    found["same"] = {
        "cached": sum(a[-1] == b.said for a, b in zip(found["asked"], as_text, strict=True)),
        "slots": sum(a.said == b.said for a, b in zip(in_slots, as_text, strict=True)),
    }
    found["elsewhere"] = {}
    return found


def late_patch(bench: Bench, options: Options, told: Told) -> Measured:
    """States of the host that reads the fact, put at the same place of one that reads slots.

    At each block: of the facts that the reading host says exactly, how many the other one says
    then; and the same with the states of the fact after it, which has to fail.
    """
    _, every = chosen(tuned=options.tuned, facts=options.facts)
    facts = every[:READ]
    layers = [i for i in PATCHED if i < len(bench.adapter.layers)]
    layers = layers or [len(bench.adapter.layers) - 1]
    as_text, blank = routes.text(bench), routes.empty_slots(bench)
    donors = bench.ask(facts, as_text, routes.asked)
    told("asking", len(facts), None)
    says = [fact for fact, one in zip(facts, donors, strict=True) if one.exact]
    # Answers are normalised before they are compared; what is transferred is what was said.
    said = {f.subject: one.said for f, one in zip(facts, donors, strict=True)}
    states = {
        f.subject: routes.answer_states(
            bench, bench.case(f, f.question, as_text(f), said[f.subject]), layers
        )
        for f in says
    }
    found: Measured = {"donors": [len(says), len(facts)], "layers": {}}
    after = dict(zip((f.subject for f in says), [*says[1:], *says[:1]], strict=True))
    for layer in layers:
        hits = {"own": 0, "of another": 0}
        for kind, of in (("own", lambda f: f), ("of another", lambda f: after[f.subject])):
            cases = [
                bench.case(
                    f, f.question,
                    routes.with_late(blank(f), states[of(f).subject][layer], layer),
                    said[f.subject],
                )
                for f in says
            ]  # fmt: skip
            hits[kind] = sum(
                one.said == said[f.subject]
                for f, one in zip(says, bench.asking.ask(cases), strict=True)
            )
        found["layers"][str(layer)] = hits
        told("asking", 2 * len(says), None)
    return found


# -- swept ways ----------------------------------------------------------------------------


def swept(bench: Bench, way: str, options: Options, told: Told) -> Measured:
    """Choose layer, scale and position on facts for tuning, then ask the others with the best."""
    tuning, facts = chosen(tuned=options.tuned, facts=options.facts)
    grid: list[list[Any]] = []
    for layer, scale, place in itertools.product(options.layers, options.scales, (False, True)):
        route = _swept_route(bench, way, options, layer, scale, place)
        cases = [bench.case(f, f.question, route(f)) for f in tuning]
        said = bench.asking.ask(cases, generate=False)
        per_token = [one.logprob / len(c.answer) for one, c in zip(said, cases, strict=True)]
        grid.append([layer, scale, place, sum(per_token) / len(per_token)])
        told("sweeping", 1, 2 * len(options.layers) * len(options.scales))
    layer, scale, place, _ = max(grid, key=lambda one: one[3])
    best = _swept_route(bench, way, options, layer, scale, place)
    found = heard(bench, best, facts, options, told)
    other = bench.ask(facts, routes.of_another(facts, best), routes.asked)
    return {**found, "grid": grid, "best": [layer, scale, place], "of another": plain(other)}


def _swept_route(
    bench: Bench, way: str, options: Options, layer: int, scale: float, place: bool
) -> Route:
    if way == "added":
        return routes.added(bench, layer=layer, scale=scale, everywhere=not place)
    name = {"raw states": "raw", "last token": "last"}.get(way, way)
    return routes.pooled(bench, name, layer=layer, scale=scale, count=options.slots, behind=place)


# -- trained ways --------------------------------------------------------------------------


def soft(bench: Bench, way: str, part: int, options: Options, told: Told) -> Measured:
    """Train a soft prompt for each of some facts, and ask them."""
    _, every = chosen(tuned=options.tuned, facts=options.facts)
    facts = every[part * options.share : (part + 1) * options.share]
    trained, steps, losses = {}, [], []
    began = time.perf_counter()
    for fact in facts:
        found = _trained(bench, fact, options, way)
        trained[fact.subject] = found.vectors
        steps.append(len(found.losses))
        losses.append(round(min(found.losses), 4))
        told("training", 1, len(facts))
    seconds = (time.perf_counter() - began) / len(facts)

    def route(fact: MadeUp) -> Given:
        return routes.slots(trained[fact.subject])

    own = Options(**{**vars(options), "held": 2})
    measured = heard(bench, route, facts, own, told)
    other = bench.ask(facts, routes.of_another(facts, route), routes.asked)
    chosen_by, fired = routes.found(bench, facts, route, routes.held(0))
    return {
        **measured,
        "found": plain(bench.ask(facts, chosen_by, routes.held(0))),
        "fired": fired,
        "of another": plain(other),
        "steps": steps,
        "losses": losses,
        "seconds a fact": round(seconds, 2),
    }


def _trained(bench: Bench, fact: MadeUp, options: Options, way: str) -> Any:
    wordings = [fact.question, *fact.rewordings] if way == SEVERAL else [fact.question]
    answer = bench.form.answer(fact.answer)[: 1 if way == FIRST else None]
    lessons = [Lesson(bench.form.question(one, given=True), answer) for one in wordings]
    begin = start(bench.adapter, fact.statement, slots=options.soft_slots, seed=options.seed)
    return train(
        bench.adapter,
        lessons,
        begin=begin,
        steps=Steps(options.steps, options.learning_rate, ENOUGH),
        past=bench.asking.read,
    )


def simple(options: Options) -> Mapping[str, Callable[[Bench], Route]]:
    """Routes that need nothing but the host."""
    return {
        "nothing": lambda bench: routes.nothing,
        "text": routes.text,
        "empty slots": routes.empty_slots,
        "random vectors": lambda bench: routes.random_vectors(
            bench, count=options.slots, seed=options.seed
        ),
        "keys and values": routes.keys_and_values,
    }


def parts(options: Options) -> Iterator[int]:
    """Numbers of the units that soft prompts are trained in."""
    yield from range(-(-options.facts // options.share))
