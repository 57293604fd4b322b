"""How a host is spoken to: plain text or its chat template, in token ids.

Everything here reads the tokenizer's own behaviour (rendered templates, encoded examples) and
never the name of a model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engram_transformers.errors import BadInput

Form = Literal["plain", "chat"]
Talk = list[tuple[str, str]]
"Messages by turns, each with its role: `user` or `assistant`."

_SENTINEL = "kqzv7"
_ANSWER_CUE = re.compile(r"(?:^|\s)(?:a|answer|assistant|response)\s*:\s*$", re.I)
_QUESTION_CUE = re.compile(r"^\s*(?:q|question|user|human|prompt|query)\s*:\s*", re.I)
_EQUATION = re.compile(r"\S=$")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_CUES = {"user": "Question", "assistant": "Answer"}
_OPENERS = (
    ".!?:;,\"'([{\u201c\u00ab\u2014-"
    "\u3002\uff01\uff1f\uff1a\uff1b\uff0c\u3001\uff08\u300c\u300e\u300a"
)


@dataclass(frozen=True)
class ChatTurn:
    """The text that a chat template puts around what the user says in one turn."""

    header: str
    "Opens the user's turn, whichever turn of the talk it is."
    marker: str
    "Closes it and opens the answer."


class HostTokens:
    """Encodes prompts and answers the way the host meets them, and finds questions in ids."""

    def __init__(self, tokenizer: Any, *, stop: int | None) -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        "The token that ends an answer; None for a host that has none."
        self.form: Form | None = None
        "How this host is asked; None: through its chat template where it has one."
        self._text_of = lru_cache(maxsize=65_536)(self._decode_one)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any special token around it."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts at once, which a fast tokenizer does in parallel."""
        if not texts:
            return []
        plain = self._plain_tokenizer()
        if plain is not None:
            encodings = plain.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def _plain_tokenizer(self) -> Any:
        """The tokenizer below transformers' own, which is several times slower; None if unfit."""
        if not self.tokenizer.is_fast:
            return None
        below = self.tokenizer.backend_tokenizer
        # What an earlier call of the user's asked for stays switched on.
        return None if below.padding or below.truncation else below

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, special tokens included."""
        return str(
            self.tokenizer.decode(
                # Tokens that the host was given as embeddings have no id, and no text.
                [token for token in ids if token >= 0],
                skip_special_tokens=False,
                clean_up_tokenization_spaces=False,
            )
        )

    def decode_answer(self, ids: Sequence[int]) -> str:
        """What a reader sees of an answer: no special tokens, no space around it."""
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text).strip()

    def text_of(self, token: int) -> str:
        """The text of one token."""
        return self._text_of(int(token))

    def _decode_one(self, token: int) -> str:
        return self.decode([token]) if token >= 0 else ""

    @cached_property
    def special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    @cached_property
    def joining(self) -> NDArray[np.bool_]:
        """(tokens,): which tokens go on with the word or the number that stands before them."""
        # Some tokenizers drop the space of a token that is decoded alone, none of a second one.
        [before] = self.encode("x")[:1]
        pairs = [[before, token] for token in range(len(self.tokenizer))]
        if self.tokenizer.is_fast:
            texts = self.tokenizer.backend_tokenizer.decode_batch(pairs, skip_special_tokens=False)
        else:
            texts = [self.decode(pair) for pair in pairs]
        start = len(self.decode([before]))
        special = self.special
        return np.array(
            [
                text[start : start + 1].isalnum() and i not in special
                for i, text in enumerate(texts)
            ],
            dtype=np.bool_,
        )

    # -- prompts ---------------------------------------------------------------------------

    @property
    def ask_form(self) -> Form:
        """How a user of this host asks: through the chat template where there is one."""
        return self.form or ("chat" if self.turn else "plain")

    @cached_property
    def turn(self) -> ChatTurn | None:
        """What the chat template writes around a user's message; None without a template."""
        if not getattr(self.tokenizer, "chat_template", None):
            return None
        first = self._render([("user", _SENTINEL)])
        second = self._render([("user", "a"), ("assistant", "b"), ("user", _SENTINEL)])
        if first.count(_SENTINEL) != 1 or second.count(_SENTINEL) != 1:
            return None
        before, marker = first.split(_SENTINEL)
        again, marker_again = second.split(_SENTINEL)
        if not marker or marker != marker_again:
            return None
        return ChatTurn(header=_common_end(before, again), marker=marker)

    @cached_property
    def marker(self) -> tuple[int, ...]:
        """Ids between a user's message and the answer; empty without a chat template."""
        return tuple(self.encode(self.turn.marker)) if self.turn else ()

    @cached_property
    def header(self) -> tuple[int, ...]:
        """Ids that open a user's message; empty without a chat template."""
        # A space at its end becomes part of the message's first token.
        return tuple(self.encode(self.turn.header.rstrip(" "))) if self.turn else ()

    @cached_property
    def frame(self) -> int:
        """How many tokens an ask puts around its question, at most."""
        return len(self.prompt_ids("x", form=self.ask_form))

    def prompt_text(self, prompt: str, *, form: Form) -> str:
        """The text that the host reads when it is asked this prompt."""
        return self._render([("user", prompt)]) if form == "chat" else prompt

    def prompt_ids(self, prompt: str, *, form: Form) -> list[int]:
        """The ids that the host reads, with what its tokenizer puts before plain text."""
        if form == "chat":
            return self.encode(self.prompt_text(prompt, form=form))
        ids: list[int] = self.tokenizer(prompt)["input_ids"]
        # Some tokenizers close every text with an end token, which would end the answer too.
        return ids[:-1] if ids and ids[-1] == self.stop else ids

    def talk_ids(self, messages: Talk) -> list[int]:
        """The ids of a talk, (role, text) by turns, up to where the next answer begins.

        Raises:
            BadInput: a role that the chat template refuses, or that plain text has no word for.
        """
        if self.turn:
            return self.encode(self._refusable(messages))
        for role, _ in messages:
            if role not in _CUES:
                raise BadInput(
                    f"this host has no chat template, so that it can be told nothing by {role!r}; "
                    f"use the roles {' and '.join(_CUES)}"
                )
        lines = [f"{_CUES[role]}: {text}" for role, text in messages]
        return self.prompt_ids("\n".join([*lines, "Answer:"]), form="plain")

    def _refusable(self, messages: Talk) -> str:
        from jinja2 import TemplateError  # what renders templates has it

        try:
            return self._render(messages)
        except TemplateError as error:
            raise BadInput(f"the host's chat template refuses this talk: {error}") from error

    def _render(self, messages: Talk) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                tokenize=False,
                add_generation_prompt=True,
            )
        )

    # -- questions in a stream of ids ------------------------------------------------------

    def opens_a_span(self, before: int) -> bool:
        """Whether a taught prompt may begin right after this token.

        Inside a sentence it may not: `Paris is in` must not be found in `Disneyland Paris is in`.
        """
        if before in self.special:
            return True
        text = self.text_of(before)
        return text.endswith("\n") or text.rstrip().endswith(tuple(_OPENERS))

    def ends_with_marker(self, ids: NDArray[np.int64], end: int) -> bool:
        """Whether the answer to a chat turn begins at `end`."""
        size = len(self.marker)
        return bool(0 < size <= end and tuple(ids[end - size : end].tolist()) == self.marker)

    def answer_starts(self, ids: NDArray[np.int64], start: int = 0) -> list[int]:
        """Where the answers to chat turns begin that are opened after the first `start` tokens."""
        if not self.marker:
            return []
        closed = np.flatnonzero(ids[start:] == self.marker[-1]) + start + 1
        return [at for at in closed.tolist() if self.ends_with_marker(ids, at)]

    def user_message(self, ids: NDArray[np.int64], end: int) -> str:
        """The message of the chat turn whose answer begins at `end`."""
        start, stop = self.message_span(ids, end)
        return self.decode(ids[start:stop].tolist()).strip()

    def message_span(self, ids: NDArray[np.int64], end: int) -> tuple[int, int]:
        """Where the message of the chat turn whose answer begins at `end` begins and ends."""
        stop = end - len(self.marker)
        return _last_span(ids[:stop], self.header), stop

    def last_question(self, ids: NDArray[np.int64], end: int) -> str:
        """What a plain prompt of `end` tokens asks: its last line, without question cues."""
        read, turn = ids[:end].tolist(), self.turn
        text = self.decode(read)
        if turn and text.endswith(turn.marker):
            return last_question(text[: -len(turn.marker)].rpartition(turn.header)[2])
        return last_question(self.decode([token for token in read if token not in self.special]))

    def continues_with_space(self, ids: NDArray[np.int64], end: int) -> bool:
        """Whether an answer after these tokens is written with a space before it."""
        return end > 0 and _wants_space(self.decode(ids[max(0, end - 2) : end].tolist()))

    # -- answers ---------------------------------------------------------------------------

    def answer_ids(self, prompt: str, answer: str, *, form: Form) -> list[int]:
        """The ids in which the host is to answer a prompt, its stop token included."""
        bare = form == "chat" or not self.needs_space(prompt)
        ids = self.encode(answer.lstrip() if bare else self.spaced(answer))
        return ids if self.stop is None else [*ids, self.stop]

    def spaced(self, answer: str) -> str:
        """The answer as it continues a line that does not end in white space."""
        return answer if answer[:1].isspace() or _is_cjk(answer[:1]) else f" {answer}"

    def needs_space(self, prompt: str) -> bool:
        """Whether an answer continues this plain prompt after a space."""
        return _wants_space(prompt)


def last_question(text: str) -> str:
    """The last line of a text that is more than a cue such as `A:`, without such cues."""
    for line in reversed(text.splitlines()):
        asked = _QUESTION_CUE.sub("", _ANSWER_CUE.sub("", line)).strip()
        if asked:
            return asked
    return ""


def last_sentence(text: str) -> str:
    """The last sentence of a line."""
    return _SENTENCE_END.split(text.strip())[-1]


def _wants_space(text: str) -> bool:
    # `7*8=` is answered without one, as `7 * 8 =` is not.
    glued = _EQUATION.search(text) is not None
    return bool(text) and not glued and not text[-1].isspace() and not _is_cjk(text[-1])


def _is_cjk(character: str) -> bool:
    # Scripts that put no space between words.
    return bool(character) and (
        "\u3040" <= character <= "\u30ff"
        or "\u3400" <= character <= "\u9fff"
        or "\uff00" <= character <= "\uffef"
        or "\u3000" <= character <= "\u303f"
    )


def _common_end(a: str, b: str) -> str:
    size = 0
    while size < min(len(a), len(b)) and a[-1 - size] == b[-1 - size]:
        size += 1
    return a[len(a) - size :]


def _last_span(ids: NDArray[np.int64], span: tuple[int, ...]) -> int:
    """Where the last occurrence of a span ends; 0 where there is none."""
    if not span or len(span) > len(ids):
        return 0
    windows = np.lib.stride_tricks.sliding_window_view(ids, len(span))
    found = np.flatnonzero((windows == np.array(span)).all(axis=1))
    return int(found[-1]) + len(span) if len(found) else 0


def stop_token(tokenizer: Any, generation_config: Any) -> int | None:
    """The token at which the host's generation ends an answer; None for a host without one.

    A host may stop at several tokens. What its chat template writes after an answer is the one
    that it was trained to end a turn with.
    """
    found = getattr(generation_config, "eos_token_id", None)
    given = found if isinstance(found, list | tuple) else [found]
    stops: list[int] = [int(stop) for stop in given if stop is not None]
    if len(stops) > 1 and getattr(tokenizer, "chat_template", None):
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _SENTINEL}]
        text = tokenizer.apply_chat_template(talk, tokenize=False)
        after = tokenizer(text.rpartition(_SENTINEL)[2], add_special_tokens=False)["input_ids"]
        stops = [token for token in after if token in stops] or stops
    if stops:
        return stops[0]
    own = tokenizer.eos_token_id
    return None if own is None else int(own)
