"""Are A*B and B*A one thing to a host? Their states beside those of other pairs, and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engram_transformers.errors import BadInput
from engram_transformers.introspection.asymmetry import Asymmetry
from engram_transformers.introspection.facts import FactSet
from engram_transformers.introspection.memory import look
from engram_transformers.introspection.organisation import DRAWS, Organisation
from engram_transformers.introspection.relations import COMMUTATIVE, relations_of
from engram_transformers.introspection.retrieval import Retrieval
from engram_transformers.introspection.similarity import Kind
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import Form, HostTokens
from engram_transformers.types import Told


@dataclass(frozen=True)
class Commutativity:
    """What swapping operands changes."""

    facts: FactSet
    layer: int
    selected: str
    kind: Kind
    organisation: Organisation
    "At that layer; its effect `commutative` is the one that is asked about."
    asymmetry: Asymmetry
    "Every pair at that layer."
    sweep: tuple[tuple[int, Organisation], ...]
    retrieval: Retrieval | None
    "None where one layer was asked for."

    @property
    def nearest(self) -> float:
        """The share of facts whose nearest neighbour is the same with operands swapped."""
        pairs = self.asymmetry.pairs
        hits = sum((one.rank_forth == 1) + (one.rank_back == 1) for one in pairs)
        return hits / (2 * len(pairs))

    @property
    def by_chance(self) -> float:
        """What that share would be if neighbours were drawn at random."""
        return 1 / (len(self.facts.facts) - 1)

    @property
    def answered(self) -> dict[str, int]:
        """Pairs of which both, one or none is answered right, whole and greedily."""
        if self.retrieval is None:
            return {}
        right = [one.rank == 1 for one in self.retrieval.facts]
        hits = [right[pair.one] + right[pair.other] for pair in self.asymmetry.pairs]
        return {"both": hits.count(2), "one": hits.count(1), "none": hits.count(0)}

    @property
    def verdict(self) -> str:
        """What can be said of the states at the layer."""
        effect = self.organisation.effect(COMMUTATIVE)
        if effect is None:
            return "there are no unrelated pairs to compare with"
        told = "" if effect.significant else "not "
        return (
            f"at layer {self.layer} A*B and B*A are {told}significantly more alike than unrelated "
            "facts"
        )


def commutativity(
    adapter: Adapter,
    tokens: HostTokens,
    facts: FactSet,
    *,
    layer: int | Literal["auto", "all"] = "all",
    kind: Kind = "centred",
    form: Form = "plain",
    draws: int = DRAWS,
    seed: int = 0,
    told: Told = lambda what, done, total: None,
) -> Commutativity:
    """Compare the states of A*B and B*A; with one layer, nothing above it is run.

    Raises `BadInput` for facts without pairs whose operands are swapped.
    """
    if COMMUTATIVE not in relations_of(facts).pairs:
        raise BadInput(
            f"{facts.name} has no two facts with the same operands in another order; use "
            "multiplication, addition, or a file with operand_a and operand_b"
        )
    one = layer not in ("auto", "all")
    found = look(
        adapter,
        tokens,
        facts,
        layer=layer,
        kind=kind,
        view="neighbours" if one else "both",
        others=False,
        form=form,
        draws=draws,
        seed=seed,
        told=told,
    )
    assert found.organisation is not None and found.asymmetry is not None
    return Commutativity(
        facts,
        found.layer,
        found.selected,
        kind,
        found.organisation,
        found.asymmetry,
        found.sweep,
        found.retrieval,
    )
