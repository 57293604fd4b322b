"""Train the gate of a learned route: it tells look-ups from other prompts by the host's state.

Prompts are labelled and come with the package; those of the score share neither a kind nor a
wording with those of the training. A memory acts behind the gate where it is made with
`--set route=learned --set route_gate=FOLDER`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.cli import looking
from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import emit, note, say
from engram_transformers.cli.parser import Parser, add_json, add_model
from engram_transformers.errors import StoreError

if TYPE_CHECKING:
    from engram_transformers.training.gate import GateScore, TrainedGate


def configure(parser: Parser) -> None:
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the gate is kept"
    )
    parser.add_argument(
        "-l",
        "--layer",
        type=int,
        metavar="N",
        help="the block whose output it reads, from 0 (default: the one at two thirds)",
    )
    parser.add_argument(
        "--net", action="store_true", help="with an inner layer (default: a logistic regression)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of its beginning and of what it is fed"
    )
    parser.add_argument("--save-plot", type=Path, metavar="FILE", help="the calibration curve")
    add_model(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.cli.telling import Telling
    from engram_transformers.training.gate import train_gate
    from engram_transformers.training.gate_prompts import held_out_prompts, training_prompts

    looking.check_plot(args.save_plot)
    _check_folder(args.out)
    host = host_of(args, memory=None)
    count = len(training_prompts()) + len(held_out_prompts())
    with Telling() as told:
        found = train_gate(
            host.adapter,
            host.tokens,
            layer=args.layer,
            width=None if args.net else 0,
            seed=args.seed,
            progress=lambda done: told("reading prompts", done, count),
        )
    found.gate.save(args.out, about=found.about())
    if args.save_plot:
        draw(found, args.save_plot)
    if args.json:
        emit(_as_dict(found, args.out, host.identity.id))
    else:
        _show(found)
        note(f"kept in {args.out}; use it with --set route=learned --set route_gate={args.out}")
    return 0


def _check_folder(path: Path) -> None:
    """A gate that is replaced would change what memories behind it do."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{path} is there already and not an empty folder; name another one")


def draw(found: TrainedGate, path: Path) -> None:
    """Write the gate's calibration curve on held-out prompts as a PNG."""
    from engram_transformers.evaluation.report.heatmap import CurvePoint, calibration

    points = [CurvePoint(one.said, one.found) for one in found.held_out.bins]
    calibration(points, path, title="Learned gate, held-out kinds")


def _as_dict(found: TrainedGate, out: Path, model: str) -> dict[str, Any]:
    return {"gate": str(out), "model": model, "layer": found.gate.layer, **found.about()}


def _show(found: TrainedGate) -> None:
    """The score on held-out prompts, for people."""
    score: GateScore = found.held_out
    say(f"behind block {found.gate.layer}: {found.trained} prompts trained on, "
        f"{found.calibrated} to calibrate with")  # fmt: skip
    say(f"asked {score.n} others, {score.lookups} of them look-ups, with 95 % intervals:")
    meanings = {
        "precision": "of what it opens for are look-ups",
        "recall": "of the look-ups it opens for",
        "error": "is how far its probabilities are off, on average",
    }
    for name, meaning in meanings.items():
        one = getattr(score, name)
        say(f"  {name:<10}{one.value:6.3f}  {one.low:.3f} to {one.high:.3f}  {meaning}")
    say("decided rightly, by kind:")
    for kind, share in found.by_kind.items():
        say(f"  {kind:<28}{share.value:6.3f}  n {share.n}")
