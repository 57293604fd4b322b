"""Look at how a model keeps facts, in two views of one pass.

Neighbourhoods: whose state is near whose at one layer, what the states are ordered by (tested by
permutation), what swapping operands changes, which facts attract. Retrieval: how likely the whole
answers are, layer by layer, how hard each fact is, which other answers come up. Likeness of states
is not recall; only the second view says what the model knows.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from engram_transformers.cli import looking
from engram_transformers.cli.looking import heading, p_value
from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import say, short
from engram_transformers.cli.parser import Parser, positive

if TYPE_CHECKING:
    from engram_transformers.introspection.memory import MemoryMap
    from engram_transformers.introspection.organisation import Organisation
    from engram_transformers.introspection.retrieval import Retrieval

SHOWN = 6
BAR = 30
MARKS = {"memorised": "#", "partial": "~", "weak": "?", "not known": "."}


def configure(parser: Parser) -> None:
    looking.add_facts(parser)
    parser.add_argument(
        "-l",
        "--layer",
        type=looking.layer,
        default="auto",
        metavar="N",
        help="the block whose output is compared, from 0; auto: where the answers appear in the "
        "lens; all: the same, and what every layer is ordered by (default: auto)",
    )
    parser.add_argument(
        "--top-k", type=positive, default=5, metavar="N", help="neighbours of a fact (default: 5)"
    )
    parser.add_argument(
        "--classify", action="store_true", help="list every fact with how well it is known"
    )
    parser.add_argument(
        "--view",
        choices=("both", "neighbours", "retrieval"),
        default="both",
        help="what to look at; neighbours with one layer stops at that layer (default: both)",
    )
    looking.add_similarity(parser)
    parser.add_argument(
        "--show",
        type=int,
        default=SHOWN,
        metavar="N",
        help=f"neighbourhoods that are printed (default: {SHOWN}; files hold all)",
    )
    looking.add_form(parser)
    looking.add_common(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.cli.telling import Telling
    from engram_transformers.introspection.as_json import memory_json
    from engram_transformers.introspection.facts import fact_set
    from engram_transformers.introspection.memory import look

    looking.check_files(args)
    facts = fact_set(args.facts)
    host = host_of(args, memory=None)
    with Telling() as told:
        found = look(
            host.adapter,
            host.tokens,
            facts,
            # A plot shows the sweep; the layer that is looked at stays the same.
            layer="all" if args.save_plot and args.layer == "auto" else args.layer,
            top_k=args.top_k,
            kind=args.similarity,
            view=args.view,
            form=looking.form(args),
            draws=args.permutations,
            seed=args.seed,
            told=told,
        )
    if args.save_plot:
        from engram_transformers.introspection.pictures import draw_memory

        draw_memory(found, args.save_plot, model=host.identity.id)
    if not args.json:
        show(found, shown=args.show, classify=args.classify)
    looking.finish(args, memory_json(found, model=host.identity.id))
    return 0


def show(found: MemoryMap, *, shown: int, classify: bool) -> None:
    """A map for people."""
    if found.organisation is not None:
        _neighbourhoods(found, shown)
        _organisation(found, found.organisation)
        _asymmetry(found)
        _attractors(found)
    if found.retrieval is not None:
        _retrieval(found, found.retrieval, classify=classify)


def _neighbourhoods(found: MemoryMap, shown: int) -> None:
    heading("MEMORY NEIGHBORHOOD ANALYSIS")
    facts = found.facts
    say(f"Analyzing {len(facts.facts)} {facts.name} facts at layer {found.layer}")
    say(f"  of 0 to {found.layers - 1}; {found.selected}")
    say(f"  {found.kind} cosines of the states of the prompts' last tokens; likeness, not recall\n")
    every = max(1, len(found.neighbourhoods) // max(1, shown))
    picked = found.neighbourhoods[::every][:shown]
    for one in picked:
        say(f"Query: {one.prompt}\nExpected: {one.expected}")
        say(f"Top {len(one.neighbours)} neighbors:")
        for i, near in enumerate(one.neighbours, start=1):
            relation = near.relation.replace("_", " ")
            say(f"  {i}. {near.prompt} (sim: {near.similarity:.3f}) [{relation}]")
        say()
    if len(picked) < len(found.neighbourhoods):
        say(f"({len(picked)} of {len(found.neighbourhoods)}; --show N shows more, -o keeps all)\n")


MEANINGS = {
    "row-dominant": "Facts cluster by first operand ({row}...)\n"
    "  rather than by second operand ({column}...)",
    "column-dominant": "Facts cluster by second operand ({column}...)\n"
    "  rather than by first operand ({row}...)",
    "row": "Facts cluster by first operand ({row}...);\n"
    "  whether more than by second operand ({column}...) is not significant",
    "column": "Facts cluster by second operand ({column}...);\n"
    "  whether more than by first operand ({row}...) is not significant",
    "row-and-column": "Facts cluster by both operands; neither is significantly stronger",
    "answer-dominant": "Facts with the same answer are the most alike, whatever their prompts",
    "commutative-dominant": "Facts whose operands are swapped are the most alike; others with\n"
    "  their answer are less so, or not significantly",
    "category-dominant": "Facts of one category are the most alike",
    "none": "No relation makes facts significantly more alike than unrelated ones",
}


def _organisation(found: MemoryMap, organised: Organisation) -> None:
    heading("MEMORY ORGANIZATION")
    looking.effects(organised)
    lines = {"row": _line(found, 0), "column": _line(found, 1)} if found.facts.has_operands else {}
    meaning = MEANINGS[organised.type].format(**lines)
    say(f"\nOrganization: {organised.type.upper()}\n  {meaning}")
    if not organised.effects:
        say("  (no relation holds for some pairs and not for others, so there is nothing to test)")
    looking.sweep(found.sweep)
    say()


def _line(found: MemoryMap, which: int) -> str:
    """The beginning of the middle row (0) or column (1)."""
    facts = [(fact.operands[which], fact.prompt) for fact in found.facts.facts if fact.operands]
    names = list(dict.fromkeys(operand for operand, _ in facts))
    here = [prompt.strip(" =") for operand, prompt in facts if operand == names[len(names) // 2]]
    return ", ".join(here[:3])


def _asymmetry(found: MemoryMap) -> None:
    one = found.asymmetry
    if one is None:
        return
    heading("ASYMMETRY ANALYSIS")
    n, places = len(one.pairs), len(found.facts.facts) - 1
    forth = sum(pair.rank_forth for pair in one.pairs) / n
    back = sum(pair.rank_back for pair in one.pairs) / n
    say(f"A cosine has no direction, but neighborhoods have; {n} pairs, A*B the first of the set:")
    say(f"A*B → B*A: mean place {forth:.1f} of {places} among the neighbors")
    say(f"B*A → A*B: mean place {back:.1f} of {places}; difference {p_value(one.rank_p)}")
    if one.logprob_shift is not None and one.logprob_p is not None:
        say(
            f"log P(answer | A*B) - log P(answer | B*A): {one.logprob_shift:+.3f} on average, "
            f"{one.logprob_gap:.3f} in size; {p_value(one.logprob_p)}"
        )
    say(
        f"\nAsymmetry score: {one.score:.3f} (mean difference of the two places, as a share; 0 is "
        f"symmetric)\n  {one.verdict.capitalize()}\n"
    )


def _attractors(found: MemoryMap) -> None:
    heading("ATTRACTOR NODES")
    facts, hubs = found.facts.facts, [one for one in found.attractors if one.significant]
    expected = found.attractors[0].expected
    if not hubs:
        top = found.attractors[0]
        say(
            f"None: no fact is a neighbor significantly more often than chance ({expected:.1f} "
            f"neighborhoods);\n  the most is {top.count}, {p_value(top.p)}\n"
        )
        return
    say(f"Facts that frequently appear as neighbors (by chance: {expected:.1f} neighborhoods):\n")
    for hub in hubs[:10]:
        strength = hub.count / len(facts)
        say(
            f"  {facts[hub.member].prompt} appears in {hub.count}/{len(facts)} neighborhoods "
            f"(attractor strength: {strength:.3f}, {p_value(hub.p)})"
        )
    say()


def _retrieval(found: MemoryMap, seen: Retrieval, *, classify: bool) -> None:
    heading("RETRIEVAL")
    facts = found.facts.facts
    say(
        "Whole answers with their end, by the model's own output; rank 1: greedy decoding writes it"
    )
    say(f"Rank 1: {_share(seen, 1)}   rank 5 or better: {_share(seen, 5)}   n {len(facts)}")
    total = len(facts)
    for name, count in seen.classes().items():
        bar = MARKS[name] * math.ceil(BAR * count / total)  # one fact is to be seen too
        say(f"  {name:<10} {count:>4}  {bar}")
    say("  (memorised: rank 1 and P > 0.1; partial: 5, 0.01; weak: 15, 0.001)\n")
    _curve(seen)
    _extremes(found, seen)
    _coactive(found, seen)
    if classify:
        heading("DIFFICULTY")
        for fact, one in zip(facts, seen.facts, strict=True):
            asked, answer = short(fact.prompt, 40), short(fact.answer, 16)
            known = f"{one.difficulty:<10} rank {one.rank:>5}  P {one.probability:.3g}"
            say(f"  {MARKS[one.difficulty]} {asked:<40} {answer:<16} {known}")
        say()


def _share(seen: Retrieval, k: int) -> str:
    from engram_transformers.evaluation.metrics import rate

    found = rate(one.rank <= k for one in seen.facts)
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def _curve(seen: Retrieval) -> None:
    say("By layer, through the lens:   log P(answer)   rank 1   appears")
    appears = [one.emerges for one in seen.facts]
    for row, layer in enumerate(seen.layers):
        mean, first = float(seen.logprobs[row].mean()), float((seen.ranks[row] == 1).mean())
        here = appears.count(layer)
        say(f"  layer {layer:>3}              {mean:>14.2f}   {first:>6.1%}   {here}")
    say()


def _extremes(found: MemoryMap, seen: Retrieval) -> None:
    facts = found.facts.facts
    order = sorted(range(len(facts)), key=lambda i: seen.facts[i].logprob)
    for title, some in (("Hardest", order[:5]), ("Easiest", order[:-6:-1])):
        cells = [
            f"{facts[i].prompt} {facts[i].answer} ({seen.facts[i].probability:.2g})" for i in some
        ]
        say(f"{title}: " + ", ".join(cells))
    say()


def _coactive(found: MemoryMap, seen: Retrieval) -> None:
    if not seen.attractors:
        say("Other answers were not tried: the set has too many, or only one\n")
        return
    places = [one.rank_among_answers or 0 for one in seen.facts]
    first = sum(place == 1 for place in places) / len(places)
    chance = 1 / len(found.facts.answers)
    say(
        f"Among the set's {len(found.facts.answers)} answers the right one comes first for "
        f"{first:.1%} (by chance {chance:.1%})"
    )
    hubs = [(answer, one) for answer, one in seen.attractors if one.significant][:8]
    if hubs:
        shown = ", ".join(f"{answer} ({one.count}/{one.lists})" for answer, one in hubs)
        say(
            f"Answers that come up for other facts, {found.top_k} likeliest each, by chance "
            f"{hubs[0][1].expected:.1f}: {shown}"
        )
    say()
