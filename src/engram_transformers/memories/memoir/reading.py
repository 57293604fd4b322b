"""Reads texts for a residual memory: which edit speaks after which token?

An edit is looked for wherever an answer may begin: at the end of a prompt, or of a chat turn. What
stands for the question there is the mean activation over its own tokens, which are kept as the
text is read, and let go once that is settled. The edit that is found acts on the last token before
the answer and on those that follow, as long as they are the answer's own: how many of them there
are tells which one comes next. The first token that departs from the answer ends it. Both travel
with the cache; where they cannot (a cache cropped into a question, a memory taught amid a text),
the text is read again by the bare host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram_transformers.memories.shared.asking import ended, where_asked
from engram_transformers.memory import Row
from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.meaning import Decision

Ids = NDArray[np.int64]
Find = Callable[[Tensor, str], Decision]
"From the mean activation (features,) of a question, and its text, to the edit that it asks for."
NOTHING = Decision(None, "nothing was asked")


@dataclass(frozen=True)
class Answer:
    """What an edit says where an answer begins in one way."""

    tokens: tuple[int, ...]
    first: int = 0
    "Slot of the first of them among all that the edit has."
    spaced: bool = False
    "Whether it is for prompts that an answer continues after a space."


@dataclass(frozen=True)
class Speech:
    """An edit that acts in a text."""

    edit: int
    answer: Answer
    since: int
    "Index of the first token at which it acts."
    until: int | None = None
    "Index of the first token at which it acts no more; None while the answer goes on."

    def slots(self, first: int, end: int) -> slice:
        """Those of what comes next after the tokens from `first` to `end`."""
        start = self.answer.first - self.since
        return slice(start + first, start + end)


@dataclass(frozen=True)
class Progress:
    """How far a text has been read, which edit acts there, and what is kept of a question."""

    read: int
    version: int
    "Of the memory: what was taught or forgotten since makes progress stale."
    prompt_end: int | None
    "Where the prompt ended, if it had by then."
    asked: int = 0
    "Where the last answer could begin; 0 before there was any."
    speech: Speech | None = None
    kept: tuple[Tensor, ...] = ()
    "Activations (tokens, features) of the last tokens read."

    @property
    def begin(self) -> int:
        """Index of the first token whose activation is kept."""
        return self.read - sum(len(part) for part in self.kept)

    def cut(self, tokens: int) -> Progress:
        """The same after the first `tokens` tokens; stale where that cannot be known."""
        if tokens >= self.read:
            return self
        if tokens < self.asked:
            return replace(self, read=-1, kept=(), speech=None)
        speech = self.speech
        if speech is not None and speech.until is not None and speech.until >= tokens:
            speech = replace(speech, until=None)
        left = max(0, tokens - self.begin)
        kept = (torch.cat(self.kept)[:left],) if left else ()
        if not self.asked and not left:
            return replace(self, read=-1, kept=(), speech=None)
        return replace(self, read=tokens, speech=speech, kept=kept)


@dataclass(frozen=True)
class Acting:
    """An edit, the tokens of a text at which it acts, and the slots of what it says there."""

    edit: int
    first: int
    end: int
    slots: slice


class Reader:
    """Finds out which edit acts where.

    Args:
        find: looks for an edit.
        answers: the ways in which an edit's answer is written.
        activations: what goes into the layer for the tokens of a text (tokens,), by the bare host:
            (tokens, features).
    """

    def __init__(
        self,
        tokens: HostTokens,
        *,
        find: Find,
        answers: Callable[[int], Sequence[Answer]],
        activations: Callable[[Ids], Tensor],
    ) -> None:
        self.tokens, self.find, self.answers = tokens, find, answers
        self.activations = activations

    def read(
        self, row: Row, x: Tensor, before: Any, *, version: int
    ) -> tuple[list[Acting], Progress]:
        """Read the newest chunk of a row.

        Args:
            x: (tokens in the chunk, features).
            before: what was carried from the chunk before.
        """
        past = self._past(row, before, version=version)
        acting: list[Acting] = []
        speech, at = past.speech, row.start
        asked = past.asked
        for end, text in sorted(where_asked(self.tokens, row, start=row.start)):
            speech = _followed(row, speech, read=end)
            acting += _part(speech, at, end - 1)
            at, asked = max(at, end - 1), end
            decision = self._decided(row, x, past, end=end, text=text)
            speech = self._next(row, speech, decision, end=end)
        read = len(row.ids)
        speech = _followed(row, speech, read=read)
        acting += _part(speech, at, read)
        kept = self._kept(row, x, past, asked=asked)
        return acting, Progress(read, version, ended(row, read), asked, speech, kept)

    def decision(self, row: Row) -> Decision:
        """What the last question of a text asks, which the bare host reads for it."""
        asked = sorted(where_asked(self.tokens, row, start=0))
        if not asked:
            return NOTHING
        end, text = asked[-1]
        return self._decided(row, None, Progress(0, 0, None), end=end, text=text)

    def span(self, row: Row, end: int) -> tuple[int, int]:
        """The tokens of the question whose answer begins at `end`, without the template's."""
        if self.tokens.ends_with_marker(row.ids, end):
            return self.tokens.message_span(row.ids, end)
        return (0 if row.begins is None else int(row.begins[end - 1]), end)

    def _past(self, row: Row, before: Any, *, version: int) -> Progress:
        if row.start == 0:
            return Progress(0, version, None)
        same = (row.start, version, ended(row, row.start))
        if (
            isinstance(before, Progress)
            and (before.read, before.version, before.prompt_end) == same
        ):
            return before
        return self._read_again(row, version=version)

    def _read_again(self, row: Row, *, version: int) -> Progress:
        """What would have been carried, of a text whose beginning nobody kept."""
        begins = None if row.begins is None else row.begins[: row.start]
        seen = replace(row, ids=row.ids[: row.start], begins=begins, start=0)
        asked = sorted(where_asked(self.tokens, seen, start=0))
        ids = seen.ids
        turns = [i for i, (end, _) in enumerate(asked) if self.tokens.ends_with_marker(ids, end)]
        fresh = Progress(row.start, version, ended(row, row.start))
        # What was asked before the last turn is over.
        for end, text in asked[turns[-1] if turns else 0 :]:
            before = _followed(seen, fresh.speech, read=end)
            decision = self._decided(seen, None, fresh, end=end, text=text)
            speech = self._next(seen, before, decision, end=end)
            fresh = replace(fresh, asked=end, speech=speech)
        return replace(fresh, speech=_followed(seen, fresh.speech, read=row.start))

    def _next(
        self, row: Row, speech: Speech | None, decision: Decision, *, end: int
    ) -> Speech | None:
        """The speech after a place where an answer may begin, given the one before."""
        if decision.value is not None:
            return Speech(decision.value, self._answer(decision.value, row, end), end - 1)
        # A prompt may end amid an answer that was begun for the host.
        goes_on = speech is not None and (speech.until is None or speech.until >= end)
        return speech if goes_on else None

    def _decided(
        self, row: Row, x: Tensor | None, past: Progress, *, end: int, text: str
    ) -> Decision:
        first, stop = self.span(row, end)
        if stop <= first:
            return NOTHING
        if x is not None and first >= past.begin:
            known = torch.cat([*past.kept, x])[first - past.begin : stop - past.begin]
        elif (row.ids[:end] >= 0).all():
            known = self.activations(row.ids[:end])[first:stop]
        else:
            return NOTHING  # tokens that were given as embeddings cannot be read again
        return self.find(mean_of(known), text)

    def _answer(self, edit: int, row: Row, end: int) -> Answer:
        """An edit's answer as it is written behind the first `end` tokens, if it knows that way."""
        ways = self.answers(edit)
        spaced = self.tokens.continues_with_space(row.ids, end)
        return next((way for way in ways if way.spaced == spaced), ways[0])

    def _kept(self, row: Row, x: Tensor, past: Progress, *, asked: int) -> tuple[Tensor, ...]:
        """Activations that a question may still need: those since its turn was opened."""
        read, header = len(row.ids), self.tokens.header
        opened = _last_end(row.ids, header, after=max(asked, row.start - len(header)))
        if opened is None:
            if asked > past.asked or (past.asked and not past.kept):
                return ()
            opened = past.begin
        if opened >= row.start:
            return (x[opened - row.start :],) if opened < read else ()
        return (*_since(past, opened), x)


def mean_of(activations: Tensor) -> Tensor:
    """(features,): the mean of activations (tokens, features), however they were cut in chunks."""
    return activations.double().mean(dim=0).float()


def _followed(row: Row, speech: Speech | None, *, read: int) -> Speech | None:
    """The speech with its end, if before token `read` the text departs from the answer, or ends."""
    if speech is None or speech.until is not None:
        return speech
    after, size = speech.since + 1, len(speech.answer.tokens)
    said = row.ids[after : min(read, after + size - 1)]
    left = said != np.array(speech.answer.tokens[: len(said)], np.int64)
    if row.begins is not None:
        left = left | (row.begins[after : after + len(said)] > speech.since)
    places = np.flatnonzero(left)
    if len(places):
        return replace(speech, until=after + int(places[0]))
    return replace(speech, until=speech.since + size) if read >= speech.since + size else speech


def _part(speech: Speech | None, first: int, end: int) -> Iterator[Acting]:
    """The tokens from `first` to `end` at which a speech acts."""
    if speech is not None:
        first = max(first, speech.since)
        end = end if speech.until is None else min(end, speech.until)
        if first < end:
            yield Acting(speech.edit, first, end, speech.slots(first, end))


def _since(past: Progress, opened: int) -> tuple[Tensor, ...]:
    if opened == past.begin:
        return past.kept
    kept = torch.cat(past.kept)[opened - past.begin :] if past.kept else None
    return () if kept is None or not len(kept) else (kept,)


def _last_end(ids: Ids, span: Sequence[int], *, after: int) -> int | None:
    """Where the last occurrence of a span that begins at `after` or later ends."""
    after = max(after, 0)
    if not span or len(ids) - after < len(span):
        return None
    windows = np.lib.stride_tricks.sliding_window_view(ids[after:], len(span))
    found = np.flatnonzero((windows == np.array(span)).all(axis=1))
    return after + int(found[-1]) + len(span) if len(found) else None
