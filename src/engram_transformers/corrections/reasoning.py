"""Hooks for a loop that reasons in steps: what a memory has to do with each of them.

watch = ReasoningWatch(memory)
watch.before("What is the capital of Australia?")     # which facts will fire
watch.during("The capital of Australia is Sy")        # what is said so far
watch.after("The capital of Australia is Sydney.")    # what contradicts a taught fact
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from engram_transformers.corrections.checking import TAUGHT
from engram_transformers.corrections.claims import Claim, claim_of, joined, sentences
from engram_transformers.corrections.feedback import ProposedEdit
from engram_transformers.corrections.knowledge import Knowledge
from engram_transformers.corrections.protocol import Explains
from engram_transformers.types import Fact, Firing

Stage = Literal["before", "during", "after"]


@dataclass(frozen=True)
class Contradiction:
    """A sentence of a step that says otherwise than a taught fact."""

    sentence: str
    claim: Claim
    fact: Fact

    @property
    def proposal(self) -> ProposedEdit:
        """The edit that would make the sentence's own question be answered as taught."""
        return ProposedEdit(
            question=self.claim.question,
            answer=self.fact.answer,
            subject=self.claim.subject,
            relation=self.claim.relation,
            confidence=TAUGHT,
            contradicts=self.claim.value,
            evidence=self.sentence,
            source=self.fact.source or f"fact {self.fact.id}",
        )


@dataclass(frozen=True)
class Step:
    """What the memory has to do with one step, at one stage of it."""

    stage: Stage
    text: str
    fired: tuple[Firing, ...] = ()
    "Facts that fire on what the step asks."
    contradictions: tuple[Contradiction, ...] = ()


@dataclass
class ReasoningWatch:
    """Watches the steps of one chain of reasoning; writes nothing.

    Args:
        notify: is told every step at every stage, as soon as it is known.
    """

    memory: Explains
    notify: Callable[[Step], None] = lambda step: None
    steps: list[Step] = field(default_factory=list)
    _seen: int = 0
    "Sentences of the current step that were looked at while it was written."

    def before(self, prompt: str) -> Step:
        """A step begins: which facts fire on what it asks."""
        self._seen = 0
        return self._told(Step("before", prompt, self._fired(prompt)))

    def during(self, text: str) -> Step:
        """A step is being written: what its new whole sentences contradict.

        Args:
            text: the step so far, from its beginning.
        """
        # The last sentence may go on, unless something has ended it.
        whole = sentences(text)
        done = whole if text.rstrip().endswith((".", "!", "?")) else whole[:-1]
        new, self._seen = done[self._seen :], max(self._seen, len(done))
        return self._told(Step("during", text, contradictions=self._against(new)))

    def after(self, text: str) -> Step:
        """A step is complete: which facts fired on its questions, and what it contradicts."""
        asked = [one for one in sentences(text) if one.endswith("?")]
        fired = tuple(firing for one in asked for firing in self._fired(one))
        self._seen = 0
        return self._told(Step("after", text, fired, self._against(sentences(text))))

    def _fired(self, question: str) -> tuple[Firing, ...]:
        firing = self.memory.explain(question)
        return (firing,) if firing.fired else ()

    def _against(self, said: Sequence[str]) -> tuple[Contradiction, ...]:
        parts = [part for one in said for part in joined(one)]
        claims = [(one, claim) for one in parts if (claim := claim_of(one))]
        # Facts are gone through only where there is something to hold against them.
        knowledge = Knowledge(self.memory.facts if claims else ())
        return tuple(
            Contradiction(sentence, claim, fact)
            for sentence, claim in claims
            if (fact := knowledge.against(claim))
        )

    def _told(self, step: Step) -> Step:
        self.steps.append(step)
        self.notify(step)
        return step
