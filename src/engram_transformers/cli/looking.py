"""What the commands of `introspect` share: options, headings, results in a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engram_transformers.cli.output import emit, note, say
from engram_transformers.cli.parser import Parser, add_json, add_model, positive
from engram_transformers.errors import BadInput, PlaceNotFound, StoreError

if TYPE_CHECKING:
    from engram_transformers.introspection.organisation import Effect, Organisation

LINE = "=" * 70
NAMES = {
    "same_row": "Same-row",
    "same_column": "Same-column",
    "commutative": "Commutative",
    "same_answer": "Same-answer",
    "same_category": "Same-category",
}


def add_common(parser: Parser) -> None:
    """`-m`, `-o`, `--save-plot`, `--json`."""
    add_model(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="save the result as a JSON file"
    )
    parser.add_argument(
        "--save-plot", type=Path, metavar="FILE", help="draw it as a PNG (needs matplotlib)"
    )
    add_json(parser)


def add_facts(parser: Parser) -> None:
    """`--facts`."""
    parser.add_argument(
        "--facts",
        default="multiplication",
        metavar="WHICH",
        help="multiplication, addition, capitals, elements, or @FILE: JSON, JSONL or CSV with "
        "prompt and answer, and operand_a and operand_b, or category (default: multiplication)",
    )


def add_form(parser: Parser) -> None:
    """`--chat`."""
    parser.add_argument(
        "--chat", action="store_true", help="ask through the chat template, not as plain text"
    )


def form(args: argparse.Namespace) -> Literal["plain", "chat"]:
    """How prompts are asked."""
    return "chat" if args.chat else "plain"


def add_similarity(parser: Parser) -> None:
    """`--similarity`, `--permutations`, `--seed`."""
    parser.add_argument(
        "--similarity",
        choices=("centred", "raw"),
        default="centred",
        help="cosines with the facts' mean taken away, or as they are (default: centred)",
    )
    parser.add_argument(
        "--permutations",
        type=_permutations,
        default=2000,
        metavar="N",
        help="relabellings for p-values, 20 at least (default: 2000)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="draws the permutations")


def _permutations(text: str) -> int:
    """Of fewer than 20 no p-value can be below 0.05."""
    count = positive(text)
    if count < 20:
        raise argparse.ArgumentTypeError(
            f"{count} relabellings show nothing at 5 %; use 20 or more"
        )
    return count


def layer(text: str) -> int | Literal["auto", "all"]:
    """A layer's index, `auto` or `all`."""
    if text == "auto":
        return "auto"
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no layer: a number, auto or all") from error


def check_files(args: argparse.Namespace) -> None:
    """Nobody should learn after a minute that what was found cannot be kept."""
    check_plot(args.save_plot)
    check_file(args.output)


def check_plot(path: Path | None) -> None:
    """Likewise of a picture; `MissingExtra` where none can be drawn."""
    if path is not None:
        from engram_transformers.evaluation.report.drawing import check

        check()
    check_file(path)
    if path is not None and path.suffix.lower() != ".png":
        raise BadInput(f"{path} is to be a picture; plots are PNG, so name a .png file")


def check_file(path: Path | None) -> None:
    """Likewise of one file; what it holds stays."""
    if path is None:
        return
    if path.is_dir():
        raise StoreError(f"{path} is a directory; name a file in it")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"{path}: its directory does not exist; make it first")
    new = not path.exists()
    try:
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def without_mlp(instead: str) -> Iterator[None]:
    """Names the option that helps where a host has no such MLP, which takes no places here."""
    try:
        yield
    except PlaceNotFound as error:
        if error.found is None:
            raise
        raise PlaceNotFound(f"{error.found}; use {instead}") from error


def finish(args: argparse.Namespace, data: dict[str, Any]) -> None:
    """Keep a result where `-o` says, and print it where `--json` does."""
    if args.output:
        text = json.dumps(data, ensure_ascii=False, indent=2)
        args.output.write_text(text + "\n", encoding="utf-8")
        note(f"kept in {args.output}")
    if args.save_plot:
        note(f"drawn in {args.save_plot}")
    if args.json:
        emit(data)


def heading(text: str) -> None:
    """A section's title between two rules."""
    say(f"{LINE}\n{text}\n{LINE}")


def p_value(p: float) -> str:
    """A p-value for people."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def effects(organised: Organisation) -> None:
    """How alike the facts of every relation are, with tests."""
    for one in organised.effects:
        name = f"{NAMES[one.relation]} similarity:"
        say(f"{name:<26}{one.mean:6.3f} ± {one.sd:.3f}  {_tested(one)}")
    if organised.unrelated_pairs:
        mean, sd = organised.unrelated_mean, organised.unrelated_sd
        say(f"{'Cross similarity:':<26}{mean:6.3f} ± {sd:.3f}  n {organised.unrelated_pairs}")
    if organised.row_column_p is not None:
        difference = f"{organised.row_less_column:+.3f}, {p_value(organised.row_column_p)}"
        say(f"Row less column:          {difference} (sign flips over operands)")


def sweep(layers: Sequence[tuple[int, Organisation]]) -> None:
    """The same by layer; nothing where one layer was looked at."""
    if not layers:
        return
    names = [one.relation for one in layers[0][1].effects]
    say("\nBy layer, how much more alike than unrelated pairs (* p < 0.05 over all layers):")
    say("  layer" + "".join(f"{NAMES[name]:>16}" for name in names) + "  organization")
    for layer, each in layers:
        cells = [f"{one.shift:+.3f}{'*' if one.significant else ' '}" for one in each.effects]
        say(f"  {layer:>5}" + "".join(f"{cell:>16}" for cell in cells) + f"  {each.type}")


def _tested(one: Effect) -> str:
    return f"n {one.pairs}, {one.shift:+.3f} over cross, {p_value(one.p)}"
