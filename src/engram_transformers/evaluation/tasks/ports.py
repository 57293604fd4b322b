"""IANA's ports: which service a port and its protocol belong to.

Asked from the port, because a service can have many. Reserved and unassigned ports, and those
without a name, have nothing to teach: they are the near misses. The long name of a service is
accepted beside its short one.
"""

from __future__ import annotations

from engram_transformers.evaluation.data import document
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "lookup/iana-port-numbers.json"
FREE = {"Reserved", "Unassigned"}


def ports() -> Task:
    """11,488 ports with another wording each, and 853 that no service has."""
    listed: dict[str, tuple[str, str]] = document(FILE)
    named = {p: names for p, names in listed.items() if names[0] and names[1] not in FREE}
    facts = {port: Fact(_question(port), name) for port, (name, _) in named.items()}
    also = {port: (title,) if title else () for port, (_, title) in named.items()}
    return Task(
        "ports",
        "chat",
        tuple(facts.values()),
        asked={
            "paraphrase": tuple(
                Question.about(fact, _otherwise(port), also[port]) for port, fact in facts.items()
            )
        },
        silent={"near": tuple(_question(port) for port in listed if port not in named)},
        categories={fact.id: port.partition("/")[2] for port, fact in facts.items()},
        accepted={fact.id: also[port] for port, fact in facts.items() if also[port]},
        source=FILE,
    ).without_clashes()


def _question(port: str) -> str:
    return f"Which service has port {port}?"


def _otherwise(port: str) -> str:
    number, _, protocol = port.partition("/")
    return f"What is {protocol.upper()} port number {number} assigned to?"
