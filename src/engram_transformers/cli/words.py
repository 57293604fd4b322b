"""What a memory decided about a question, in words."""

from __future__ import annotations

from engram_transformers.cli.output import short
from engram_transformers.types import Fact, Firing


def explanation(firing: Firing, fact: Fact | None) -> str:
    """Which fact fired and why, and what else was considered."""
    if firing.fired and fact:
        head = f"fired: {fact.id} by {firing.address} ({firing.score:.2f}): {firing.reason}"
        lines = [head, f"  taught as {short(fact.prompt)!r}"]
    else:
        lines = [f"silent: {firing.reason}"]
    for one in firing.candidates:
        scores = f"similarity {one.similarity:.2f}, probability {one.probability:.2f}"
        lines.append(f"  {one.fact}  {scores}  {short(one.question)}")
    return "\n".join(lines)
