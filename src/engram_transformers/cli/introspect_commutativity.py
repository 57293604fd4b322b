"""Compare what a model has of A*B with what it has of B*A.

States of swapped pairs are compared with those of unrelated facts, layer by layer, by permutation:
that two prompts of one form are alike says nothing by itself. With one layer, nothing above it is
run; otherwise it is also said of how many pairs both are answered right.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from engram_transformers.cli import looking
from engram_transformers.cli.looking import heading, p_value
from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import say
from engram_transformers.cli.parser import Parser, positive

if TYPE_CHECKING:
    from engram_transformers.introspection.commutativity import Commutativity


def configure(parser: Parser) -> None:
    looking.add_facts(parser)
    parser.add_argument(
        "-l",
        "--layer",
        type=looking.layer,
        default="all",
        metavar="N",
        help="one layer, from 0; auto: where the answers appear in the lens; all: that one, and "
        "a sweep (default: all)",
    )
    looking.add_similarity(parser)
    parser.add_argument(
        "--show", type=positive, default=10, metavar="N", help="pairs that are printed"
    )
    looking.add_form(parser)
    looking.add_common(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.cli.telling import Telling
    from engram_transformers.introspection.as_json import commutativity_json
    from engram_transformers.introspection.commutativity import commutativity
    from engram_transformers.introspection.facts import fact_set

    looking.check_files(args)
    facts = fact_set(args.facts)
    host = host_of(args, memory=None)
    with Telling() as told:
        found = commutativity(
            host.adapter,
            host.tokens,
            facts,
            layer=args.layer,
            kind=args.similarity,
            form=looking.form(args),
            draws=args.permutations,
            seed=args.seed,
            told=told,
        )
    if args.save_plot:
        from engram_transformers.introspection.pictures import draw_commutativity

        draw_commutativity(found, args.save_plot, model=host.identity.id)
    if not args.json:
        show(found, shown=args.show)
    looking.finish(args, commutativity_json(found, model=host.identity.id))
    return 0


def show(found: Commutativity, *, shown: int) -> None:
    """What swapping operands changes, for people."""
    heading("COMMUTATIVITY")
    pairs = found.asymmetry.pairs
    say(f"{len(pairs)} pairs of {found.facts.name} at layer {found.layer} ({found.selected})")
    say(f"{found.kind} cosines of the states of the prompts' last tokens\n")
    for one in sorted(pairs, key=lambda one: -one.similarity)[:shown]:
        asked = [found.facts.facts[i].prompt for i in (one.one, one.other)]
        places = f"place {one.rank_forth:>3} forth, {one.rank_back:>3} back"
        say(f"  {asked[0]:<8} {asked[1]:<8} {one.similarity:7.3f}   {places}")
    if shown < len(pairs):
        say(f"  ({shown} of {len(pairs)}, the most alike; --show N shows more)")
    say()
    looking.effects(found.organisation)
    share, chance = found.nearest, found.by_chance
    say(f"The nearest neighbor is the swapped fact for {share:.1%} (by chance {chance:.1%})")
    say(f"\n{found.verdict[:1].upper()}{found.verdict[1:]}")
    asymmetry = found.asymmetry
    say(f"Places forth and back differ by {asymmetry.score:.3f} of all places, on average")
    if found.answered:
        told = ", ".join(f"{name} {count}" for name, count in found.answered.items())
        say(f"Pairs by how many of the two are answered right: {told}")
    if asymmetry.logprob_gap is not None and asymmetry.logprob_p is not None:
        gap = f"{asymmetry.logprob_gap:.3f} on average; one direction"
        say(f"Their log P(answer) differ by {gap}: {p_value(asymmetry.logprob_p)}")
    looking.sweep(found.sweep)
