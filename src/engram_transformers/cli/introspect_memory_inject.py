"""Inject facts into a model, ask before and after, and put everything back.

A fact is QUERY=ANSWER or PROMPT => ANSWER. By default it is an edit of MLPs: keys are what these
read at the fact's subject and in its answer, values are searched for until the model writes the
whole answer and stops. Asked besides: other wordings, the operands swapped, near prompts and 50
control prompts. With -o the edit is kept beside the result, as NAME.edit.safetensors and
NAME.edit.json.
Prompts that end in a question mark go through the chat template; others are continued as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engram_transformers.cli import looking
from engram_transformers.cli.looking import heading
from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import say, short
from engram_transformers.cli.parser import Parser, add_json, add_model
from engram_transformers.errors import BadInput

if TYPE_CHECKING:
    from engram_transformers.evaluation.metrics import Measure
    from engram_transformers.introspection.injection import Answered, Injection
    from engram_transformers.introspection.recognition import Point
    from engram_transformers.memories.rank_one import RankOneConfig

GROUPS = {
    "fact": "the fact",
    "test": "asked for",
    "reworded": "reworded",
    "partner": "operands swapped",
    "near": "near",
}
WORDS = {
    "injected": "injected",
    "already so": "injected answer, before as well",
    "unchanged": "unchanged",
    "begun": "begins with the injected answer",
    "changed": "changed, not to the injected answer",
}


def configure(parser: Parser) -> None:
    parser.add_argument(
        "--fact",
        action="append",
        default=[],
        metavar="FACT",
        help="QUERY=ANSWER or 'PROMPT => ANSWER', such as '7*8=42'; may be repeated",
    )
    parser.add_argument(
        "--subject",
        action="append",
        default=[],
        metavar="TEXT",
        help="what the fact is about, as its prompt writes it; once for each --fact, in order "
        "(default: found in the prompt)",
    )
    parser.add_argument(
        "-l",
        "--layer",
        type=_layer,
        metavar="N",
        help="the one block whose MLP is edited, from 0 (default: auto, ten by the depth)",
    )
    parser.add_argument(
        "--strength", type=float, metavar="X", help="share of the edit (default: 1.0)"
    )
    parser.add_argument(
        "--far",
        action="store_true",
        help="an edit that more other wordings reach, and that changes more of what else is said",
    )
    parser.add_argument(
        "--test",
        default="",
        metavar="PROMPTS",
        help="further prompts to ask: 'a|b|c'; each is compared with the answers of all facts",
    )
    parser.add_argument(
        "--paraphrase",
        action="append",
        default=[],
        metavar="TEXT",
        help="another wording of the first fact, asked and never taught; may be repeated",
    )
    parser.add_argument(
        "--route",
        choices=("edit", "store"),
        default="edit",
        help="edit the weights, or store the answer beside the model, where no layer, strength, "
        "method or --far applies (default: edit)",
    )
    parser.add_argument(
        "--method",
        choices=("rome", "memit", "alphaedit"),
        help="of the edit (default: memit, as a rank-one memory is taught)",
    )
    looking.add_form(parser)
    add_model(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="save the result as a JSON file"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from engram_transformers.cli.telling import Telling
    from engram_transformers.introspection.injected import injected_fact
    from engram_transformers.introspection.injection import inject
    from engram_transformers.introspection.reading import layer_of
    from engram_transformers.memories.rank_one.edit import edit_files

    args.save_plot = None
    looking.check_files(args)
    if args.output and args.route == "edit":
        for file in edit_files(_edit_of(args.output)):
            looking.check_file(file)
    _check_route(args)
    if not args.fact:
        raise BadInput("nothing to inject; pass --fact QUERY=ANSWER, such as --fact '7*8=42'")
    facts = [injected_fact(text) for text in args.fact]
    if args.subject:
        if len(args.subject) != len(facts):
            raise BadInput(
                f"{len(args.subject)} subjects for {len(facts)} facts; pass --subject once for each"
            )
        for fact, subject in zip(facts, args.subject, strict=True):
            if not subject.strip() or subject.lower() not in fact.prompt.lower():
                raise BadInput(
                    f"the subject {subject!r} is not in {fact.prompt!r}; write it as it stands "
                    "there"
                )
        pairs = zip(facts, args.subject, strict=True)
        facts = [replace(fact, subject=subject) for fact, subject in pairs]
    host = host_of(args, memory=None)
    if isinstance(args.layer, int):
        args.layer = layer_of(host.adapter, args.layer)
    with looking.without_mlp("--route store"), Telling() as told:
        found = inject(
            host.adapter,
            host.tokens,
            host.identity,
            facts,
            route=args.route,
            config=_config(args),
            strength=1.0 if args.strength is None else args.strength,
            tests=[text.strip(" ") for text in args.test.split("|") if text.strip()],
            reworded=args.paraphrase,
            chat=args.chat,
            keep=_edit_of(args.output) if args.output else None,
            told=told,
        )
    if not args.json:
        show(found)
    looking.finish(args, as_json(found, model=host.identity.id))
    return 0 if found.success.value == 1 and found.undone else 1


def _edit_of(output: Path) -> Path:
    return output.with_suffix(".edit")


def _layer(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no layer: a number or auto") from error


def _check_route(args: argparse.Namespace) -> None:
    given = {"--layer": args.layer, "--strength": args.strength, "--method": args.method}
    named = [name for name, value in given.items() if value is not None] + ["--far"] * args.far
    if args.route == "store" and named:
        raise BadInput(
            f"{' and '.join(named)} say how weights are edited, which --route store does not; "
            "leave them out, or use --route edit"
        )


def _config(args: argparse.Namespace) -> RankOneConfig:
    from dataclasses import replace

    from engram_transformers.introspection.injection import NEAR
    from engram_transformers.memories.rank_one import RankOneConfig

    layers = None if args.layer in (None, "auto") else (args.layer,)
    usual = RankOneConfig() if args.far else NEAR
    return replace(usual, method=args.method or usual.method, layers=layers)


def show(found: Injection) -> None:
    """An injection for people."""
    from engram_transformers.introspection.injected import has_neighbours

    heading("FACT INJECTION")
    where = _where(found)
    for fact in found.facts:
        say(
            f"Injecting: {fact.prompt}{'' if fact.prompt.endswith('=') else ' = '}"
            f"{fact.answer} {where}"
        )
    for fact in found.facts:
        if not has_neighbours(fact):
            say(
                f"No subject was found in {fact.prompt!r}, so nothing near is asked; pass --subject"
            )
    say("p(injected): of the whole answer and its end; first: of the answer, whatever follows")
    for title, after in (("Before", False), ("After", True)):
        say(f"\n{title} injection:")
        group = ""
        for one in found.answered:
            if one.asked.group != group:
                group = one.asked.group
                say(f" {GROUPS[group]}")
            _line(found, one, after=after)
    say(f"\nInjection strength: {found.strength}")
    say(
        f"Affected layers: {list(found.layers)}"
        if found.layers
        else "Affected layers: none; the store speaks before the head"
    )
    _summary(found)


def _where(found: Injection) -> str:
    if not found.layers:
        return "by a store"
    return f"at layer{'s' * (len(found.layers) > 1)} {', '.join(map(str, found.layers))}"


def _line(found: Injection, one: Answered, *, after: bool) -> None:
    said = one.after if after else one.before
    told = f"p(injected) {said.probability:.2g}, first {said.first:.2g}"
    if after:
        told += f"; {_status(found, one)}"
    elif said.correct is not None:
        told = f"{'correct' if said.correct else 'wrong'}; {told}"
    say(f"  {one.asked.prompt} → {short(said.answer, 44) or '(nothing)'} ({told})")


def _status(found: Injection, one: Answered) -> str:
    group, status = one.asked.group, one.status
    if group == "fact" and status != "injected":
        return "FAILED" if status != "begun" else "FAILED: the injected answer, but it goes on"
    if group == "partner" and status == "unchanged":
        return "unchanged - not commutative injection"
    if not one.elsewhere:
        return WORDS[status]
    if group == "near":
        return "the injected answer, where it is wrong"
    return f"{WORDS[status]}: that of {found.facts[one.asked.fact].prompt!r}"


def _summary(found: Injection) -> None:
    from engram_transformers.introspection.recognition import curve

    facts, kept = found.success, found.unchanged
    say(f"\nInjected: {_count(found.group('fact'), 'injected')} facts")
    for group, status, words in (
        ("reworded", "injected", "other wordings answered as injected"),
        ("partner", "unchanged", "prompts with operands swapped unchanged"),
        ("near", "unchanged", "near prompts unchanged"),
        ("test", "unchanged", "prompts asked for unchanged"),
    ):
        if found.group(group):
            say(f"  {_count(found.group(group), status)} {words}")
    for measure, words in (
        (found.elsewhere, "prompts that are no wording of a fact get its answer"),
        (found.broken, "operations that were right are wrong now"),
        (found.rescued, "operations that were wrong are right now"),
    ):
        if measure.n:
            say(f"  {_hits(measure)} {words}")
    say(
        f"Control prompts unchanged: {kept.value:.2f} of {kept.n} (95 % interval {kept.low:.2f} to "
        f"{kept.high:.2f})"
    )
    _curve(curve(found.recognised))
    say(f"Undone: {'weights and logits are bit for bit what they were' if found.undone else 'NO'}")
    say(f"Found in {found.seconds:.1f} s ({found.processor_seconds:.1f} s of processor time)")
    for path in found.files:
        say(f"kept in {path}")
    if facts.value < 1:
        instead = "another --layer, or name its --subject" if found.layers else "--route edit"
        say(f"Not every fact was injected; try {instead}.")


def _curve(points: list[Point]) -> None:
    """Where the counts change; all points are in the JSON."""
    told = ""
    for point in points:
        counts = f"{_hits(point.wordings)} wordings, {_hits(point.others)} other prompts"
        if counts != told:
            say(f"  taken for a fact's from probability {point.threshold:.2f} on: {counts}")
        told = counts


def _hits(share: Measure) -> str:
    return f"{share.value * share.n:.0f} of {share.n}"


def _count(answered: list[Answered], status: str) -> str:
    return f"{sum(one.status == status for one in answered)} of {len(answered)}"


def as_json(found: Injection, *, model: str) -> dict[str, Any]:
    """An injection as JSON."""
    from engram_transformers.introspection.recognition import curve

    first = found.facts[0]
    return {
        "model_id": model,
        "fact": f"{first.prompt} => {first.answer}",
        "facts": [fact.as_dict() for fact in found.facts],
        "route": found.route,
        "method": found.method,
        "layer": found.layers[-1] if found.layers else None,
        "affected_layers": list(found.layers),
        "strength": found.strength,
        "success": found.success.as_dict(),
        "controls_unchanged": found.unchanged.as_dict(),
        "controls": [{"prompt": prompt, "unchanged": same} for prompt, same in found.controls],
        "other_prompts_injected": found.elsewhere.as_dict(),
        "right_before_wrong_after": found.broken.as_dict(),
        "wrong_before_right_after": found.rescued.as_dict(),
        "threshold_curve": [
            {
                "threshold": point.threshold,
                "wordings": point.wordings.as_dict(),
                "others": point.others.as_dict(),
            }
            for point in curve(found.recognised)
        ],
        "answers": [_answer(found, one) for one in found.answered],
        "undo_exact": found.undone,
        "seconds": round(found.seconds, 3),
        "processor_seconds": round(found.processor_seconds, 3),
        "edit_files": [str(path) for path in found.files],
    }


def _answer(found: Injection, one: Answered) -> dict[str, Any]:
    said = {
        name: {
            "answer": each.answer,
            "logprob": round(each.logprob, 4),
            "probability": float(f"{each.probability:.6g}"),
            "probability_first": float(f"{each.first:.6g}"),
            "correct": each.correct,
        }
        for name, each in (("before", one.before), ("after", one.after))
    }
    about = {"prompt": one.asked.prompt, "group": one.asked.group, "form": one.form}
    about["fact"] = found.facts[one.asked.fact].prompt
    return {**about, **said, "status": one.status}
