"""The one form in which every route asks: four solved examples, then what is given, the question.

The examples show that an answer is a few words. They are the same for all and are read once. What
a route gives stands in the last turn before its question: as text, as slots, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.slots import EXAMPLES
from engram_transformers.models.tokens import HostTokens

_MARK = "Q"

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """The parts of a prompt in token ids, which a route puts together."""

    tokens: HostTokens
    head: Ids
    "What all prompts begin with."
    close: Ids
    "Ends the question and opens the answer."

    @classmethod
    def of(cls, tokens: HostTokens, examples: Sequence[tuple[str, str]] = EXAMPLES) -> Form:
        """For a host; `BadInput` where it has no chat template."""
        close = tokens.marker
        if not close:
            raise BadInput(
                "this study asks in a chat, and this host has no chat template; use another host"
            )
        ids = tokens.talk_ids([*examples, ("user", _MARK)])
        behind = len(tokens.encode(_MARK)) + len(close)
        return cls(tokens, tuple(ids[:-behind]), close)

    def text(self, text: str) -> Ids:
        """What is given, as tokens."""
        return tuple(self.tokens.encode(text))

    def question(self, question: str, *, given: bool) -> Ids:
        """The question, with a line's end before it where something is given."""
        line = f"\n{question}" if given else question
        return (*self.tokens.encode(line), *self.close)

    def answer(self, answer: str) -> Ids:
        """The answer and the token that ends it."""
        return tuple(self.tokens.answer_ids("", answer, form="chat"))
