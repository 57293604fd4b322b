"""What an act of teaching read and did, with the line of the file that each fact came from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engram_transformers.cli.output import emit, say, short, size_of
from engram_transformers.stores.fact_files import FactFile, Fault, Located
from engram_transformers.types import Fact, Receipt, Refusal

SHOWN = 20
"Refused facts that are named on a screen; `--json` names all."


@dataclass(frozen=True)
class Problem:
    """A fact or a line that was not stored: where it stands, and why."""

    where: str
    reason: str
    fact: Fact | None = None

    def as_dict(self) -> dict[str, Any]:
        fact = {"id": self.fact.id, **self.fact.as_dict()} if self.fact else None
        return {"where": self.where, "reason": self.reason, "fact": fact}


@dataclass(frozen=True)
class Outcome:
    """A receipt, with the faults of the files among what was refused."""

    receipt: Receipt
    kept: Sequence[Problem]
    refused: Sequence[Problem]
    dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        receipt = self.receipt
        return {
            "taught": list(receipt.taught),
            "known": list(receipt.known),
            "replaced": [{"old": each.old, "new": each.new} for each in receipt.replaced],
            "kept": [each.as_dict() for each in self.kept],
            "refused": [each.as_dict() for each in self.refused],
            "checked": receipt.checked,
            "seconds": round(receipt.seconds, 3),
            "bytes": receipt.bytes,
            "write": receipt.write,
            "dry_run": self.dry_run,
        }


@dataclass
class Reading:
    """Facts on their way from files, or from the command line, to a memory."""

    sources: Sequence[FactFile] | Fact
    limit: int | None = None
    read: int = 0
    faults: list[Problem] = field(default_factory=list)
    _where: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the facts come from, for the ledger."""
        if isinstance(self.sources, Fact):
            return "command line"
        return ", ".join(file.name for file in self.sources)

    def count(self) -> int | None:
        """About how many facts there are; None where that is not known."""
        if isinstance(self.sources, Fact):
            return 1
        counts = [file.count() for file in self.sources]
        total = None if None in counts else sum(count or 0 for count in counts)
        return min(total, self.limit) if total and self.limit else total

    def facts(self, advance: Callable[[int], None]) -> Iterator[Fact]:
        """The facts; faulty lines are noted, and count as done."""
        for found in itertools.islice(self._found(), self.limit):
            self.read += 1
            if isinstance(found, Fault):
                self.faults.append(Problem(found.where, found.reason))
                advance(1)
            else:
                self._where[found.fact.id] = found.where
                yield found.fact

    def outcome(self, receipt: Receipt, *, dry_run: bool = False) -> Outcome:
        """The receipt with places."""
        refused = [*self.faults, *map(self._problem, receipt.refused)]
        return Outcome(receipt, [*map(self._problem, receipt.kept)], refused, dry_run)

    def _found(self) -> Iterator[Located | Fault]:
        if isinstance(self.sources, Fact):
            yield Located(self.sources, "command line")
            return
        for file in self.sources:
            yield from file

    def _problem(self, refusal: Refusal) -> Problem:
        return Problem(self._where.get(refusal.fact.id, ""), refusal.reason, refusal.fact)


def report(outcome: Outcome, *, as_json: bool) -> None:
    """The receipt, for people or as JSON."""
    if as_json:
        emit(outcome.as_dict())
        return
    receipt = outcome.receipt
    counts = {"would be taught" if outcome.dry_run else "taught": len(receipt.taught)}
    counts |= {"already known": len(receipt.known), "replaced": len(receipt.replaced)}
    counts |= {"kept": len(outcome.kept), "refused": len(outcome.refused)}
    parts = [f"{n:,} {what}" for i, (what, n) in enumerate(counts.items()) if n or i == 0]
    say(", ".join(parts))
    _problems("kept as it was", outcome.kept)
    _problems("refused", outcome.refused)
    if not outcome.dry_run:
        _cost(receipt)


def _problems(title: str, problems: Sequence[Problem]) -> None:
    for each in problems[:SHOWN]:
        prompt = f" ({short(each.fact.prompt, 40)})" if each.fact else ""
        say(f"  {title}: {each.where}: {short(each.reason, 200)}{prompt}")
    if len(problems) > SHOWN:
        say(f"  … and {len(problems) - SHOWN:,} more; --json names them all")


def _cost(receipt: Receipt) -> None:
    checked = "each checked by asking the model" if receipt.checked else "not checked"
    written = f", write {receipt.write}" if receipt.write else ""
    size = f", {size_of(receipt.bytes)}" if receipt.bytes else ""
    say(f"{receipt.seconds:.1f} s{size}, {checked}{written}")
