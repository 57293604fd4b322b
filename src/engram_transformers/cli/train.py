"""Train a memory on files of facts: checkpoints, live loss, a check, a plot and a card.

The folder gets a memory directory (FOLDER/memory), which ask, chat, verify and eval open, and
README.md, which says what was trained and what was seen of it. Interrupted, --resume goes on from
the newest checkpoint and ends in the same tensors as a run that was not.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.eval import option
from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import complain, emit, note, plural, say
from engram_transformers.cli.parser import Parser, add_json, add_model, positive
from engram_transformers.errors import BadInput, FactFileError, MissingExtra
from engram_transformers.registry import check_kind, config_of, option_names
from engram_transformers.types import Fact

if TYPE_CHECKING:
    from engram_transformers.extend.run import Options, Trained

NAMED = 5
"Facts that do not hold, at most, that are shown."


def configure(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="facts; - is standard input")
    parser.add_argument(
        "-o", "--out", required=True, metavar="FOLDER", help="where the training is kept"
    )
    parser.add_argument("--kind", default="engram", metavar="KIND", help="(default: engram)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the kind, as layout=span or layers=[20]; may be repeated",
    )
    parser.add_argument(
        "--lora", action="store_true", help="train a LoRA together with it, kept beside it"
    )
    parser.add_argument(
        "--lora-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of that LoRA, as rank=8 or targets=q_proj,v_proj; may be repeated",
    )
    parser.add_argument("--valid", metavar="FILE", help="facts to ask on the way, never trained")
    parser.add_argument("--epochs", type=positive, metavar="N", help="times that all is trained")
    parser.add_argument("--batch", type=positive, metavar="N", help="questions in one step")
    parser.add_argument("--lr", type=_rate, metavar="X", help="highest learning rate")
    parser.add_argument(
        "--memory-lr", type=_rate, metavar="X", help="the same of the rows of tables"
    )
    parser.add_argument("--packing", action="store_true", help="put several texts into one row")
    parser.add_argument(
        "--seed", type=int, metavar="S", help="decides all that is drawn (default: 0)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many facts")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    add_model(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    check_kind(args.kind)  # before a model is loaded
    facts = _facts(args.files, args.limit)
    held_out = _facts([args.valid], None) if args.valid else []
    host = host_of(args, memory=None)
    from engram_transformers.cli.telling import Telling
    from engram_transformers.extend.run import train_memory

    try:
        with Telling() as told:
            found = train_memory(
                host,
                facts,
                args.out,
                held_out=held_out,
                options=_options(args),
                resume=args.resume,
                told=told,
                said=_say_loss,
            )
    except KeyboardInterrupt:
        if (resuming := _resuming(args)) is None:
            raise
        complain(f"interrupted; to go on: {resuming}")
        return 130
    _keep_for_people(found)
    emit(_as_dict(found)) if args.json else _show(found, facts)
    return 1 if found.refused else 0


def _facts(files: list[str], limit: int | None) -> list[Fact]:
    from engram_transformers.stores.fact_files import FactFile, Fault

    found: dict[str, Fact] = {}
    for file in files:
        for each in FactFile(file):
            if isinstance(each, Fault):
                raise FactFileError(f"{each.where}: {each.reason}")
            found.setdefault(each.fact.id, each.fact)
            if limit is not None and len(found) >= limit:
                return list(found.values())
    if not found:
        raise FactFileError(f"{', '.join(files)} holds no facts")
    return list(found.values())


def _options(args: argparse.Namespace) -> Options:
    from engram_transformers.extend.run import Options

    given = dict(map(option, args.set))
    if args.memory_lr is not None:
        if "table_rate" not in option_names(args.kind):
            raise BadInput(f"--memory-lr is of tables, which a {args.kind} memory has not")
        if "table_rate" in given:
            raise BadInput("--memory-lr and --set table_rate= both say how rows learn; give one")
        rate = args.lr or config_of(args.kind, given).learning_rate
        given["table_rate"] = args.memory_lr / rate
    if args.lora_set and not args.lora:
        raise BadInput("--lora-set is of a LoRA, which is trained with --lora only")
    return Options(
        kind=args.kind,
        memory=given,
        lora=dict(map(option, args.lora_set)) if args.lora else None,
        epochs=args.epochs,
        batch=args.batch,
        learning_rate=args.lr,
        packing=args.packing,
        seed=args.seed,
    )


def _resuming(args: argparse.Namespace) -> str | None:
    """The command that goes on with an interrupted training; None where it has no checkpoint."""
    from engram_transformers.training.checkpoints import last_complete

    if last_complete(Path(args.out)) is None:
        return None
    return shlex.join(["engram", "train", *([] if args.resume else ["--resume"]), *args.line])


def _say_loss(log: dict[str, float]) -> None:
    if "eval_loss" in log:
        # Before the first step nobody has said how many there will be.
        at = f"step {log['step']} of {log['steps']}" if log["steps"] else "before"
        note(f"{at}: held-out loss {log['eval_loss']:.3f}, exact {log['eval_exact']:.3f}")
    elif "loss" in log:
        note(f"step {log['step']} of {log['steps']}: loss {float(log['loss']):.4f}")


def _keep_for_people(found: Trained) -> None:
    from engram_transformers.extend.card import PLOT, draw_losses, write_card

    try:
        draw_losses(found.log, found.folder / PLOT)
    except MissingExtra as error:
        note(f"no plot was drawn: {error}")
    write_card(found)


def _show(found: Trained, facts: list[Fact]) -> None:
    held = f"{len(found.holding):,} of {plural(found.facts, 'fact')}"
    part = " since it was resumed" if found.resumed else ""
    say(f"trained in {found.seconds:,.0f} s{part}, {plural(found.steps, 'step')}: {held} hold")
    ids = set(found.refused)
    refused = [fact for fact in facts if fact.id in ids]
    for fact in refused[:NAMED]:
        say(f"does not hold: {fact.prompt!r} => {fact.answer!r}")
    if len(refused) > NAMED:
        say(f"nor do {len(refused) - NAMED:,} others; --json has the ids of all")
    if found.held_out:
        say(
            f"held out: exact {found.held_out['eval_exact_before']:.3f} before, "
            f"{found.held_out['eval_exact']:.3f} now"
        )
    say(f"kept in {found.folder}; engram ask -M {found.path} QUESTION")


def _as_dict(found: Trained) -> dict[str, Any]:
    return {
        "memory": str(found.path),
        "facts": found.facts,
        "holding": list(found.holding),
        "refused": list(found.refused),
        "held_out": found.held_out,
        "steps": found.steps,
        "losses": [entry["loss"] for entry in found.log if "loss" in entry],
        "resumed": found.resumed,
        "seconds": round(found.seconds, 3),
        "card": str(Path(found.folder) / "README.md"),
    }


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
