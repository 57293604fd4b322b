"""Trace where a fact is recalled: noise on the subject, then one state put back at a time.

Causal tracing after Meng et al. (2022). What comes back of the probability of the whole answer is
the effect of that layer and token; a heatmap shows all.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from engram_transformers.cli import looking
from engram_transformers.cli.looking import heading
from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import progress, say, short
from engram_transformers.cli.parser import Parser, positive

if TYPE_CHECKING:
    from engram_transformers.introspection.tracing import Trace

SHADES = " ░▒▓█"


def configure(parser: Parser) -> None:
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what is asked")
    parser.add_argument(
        "--subject", required=True, metavar="TEXT", help="the part of it that is disturbed"
    )
    parser.add_argument("--answer", metavar="TEXT", help="default: what the model says itself")
    parser.add_argument(
        "--kind",
        choices=("block", "mlp"),
        default="block",
        help="put back what a block gives, or what the feed-forwards of a window of layers give",
    )
    parser.add_argument(
        "--window", type=positive, metavar="N", help="layers of an mlp window (default: a fifth)"
    )
    parser.add_argument(
        "--samples", type=positive, default=8, metavar="N", help="draws of noise (default: 8)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=3.0,
        metavar="X",
        help="in standard deviations of the prompt's embeddings (default: 3)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="draws the noise")
    looking.add_form(parser)
    looking.add_common(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.introspection.as_json import trace_json
    from engram_transformers.introspection.tracing import trace

    looking.check_files(args)
    host = host_of(args, memory=None)
    advice = looking.without_mlp("--kind block")
    with advice, progress("tracing", len(host.adapter.layers)) as advance:
        found = trace(
            host.adapter,
            host.tokens,
            args.prompt,
            args.subject,
            answer=args.answer,
            kind=args.kind,
            window=args.window,
            samples=args.samples,
            noise=args.noise,
            form=looking.form(args),
            seed=args.seed,
            progress=advance,
        )
    if args.save_plot:
        from engram_transformers.introspection.pictures import draw_trace

        draw_trace(found, args.save_plot, model=host.identity.id)
    if not args.json:
        show(found)
    looking.finish(args, trace_json(found, model=host.identity.id))
    return 0


def show(found: Trace) -> None:
    """A trace for people: tokens down, layers across."""
    heading("CAUSAL TRACING")
    say(f"{found.prompt} → {found.answer}; subject {found.subject!r}")
    lost = f"{found.corrupted:.4f} ± {found.corrupted_sd:.4f}"
    say(f"P(answer): {found.clean:.4f} undisturbed, {lost} with noise ({found.samples} samples)")
    if not found.traceable:
        say("The noise hardly lowers it: there is nothing to trace. Try more --noise, or a fact")
        say("that the model knows.")
        return
    what = "a block gives" if found.kind == "block" else f"{found.window} feed-forwards give"
    say(f"What comes back with what {what}, as a share of what was lost; layers 0 to ")
    say(f"{len(found.layers) - 1} from left to right, * marks disturbed tokens:\n")
    lost_share = found.clean - found.corrupted
    for t, text in enumerate(found.tokens):
        mark = "*" if t in found.disturbed else " "
        cells = "".join(_shade(float(x) / lost_share) for x in found.effect[:, t])
        say(f"  {short(text, 14):>14}{mark} {cells} {found.effect[:, t].max() / lost_share:>6.0%}")
    layer, token = found.peak
    best = float(found.effect[found.layers.index(layer), token]) / lost_share
    say(f"\nMost comes back at layer {layer}, token {found.tokens[token].strip()!r}: {best:.0%}")


def _shade(share: float) -> str:
    return SHADES[min(len(SHADES) - 1, max(0, round(share * (len(SHADES) - 1))))]
