"""The texts: windows of token ids, what in them repeats an earlier window, and needles.

`entities` is generated: names that keep something, said again and again through a text, with other
words in between. Who keeps what is drawn anew for every text, so nothing but the text tells.
`tinyshakespeare` is read by characters, with made-up sentences among what is learnt so that there
is something to recall; held-out text has none, and its needles are facts of later centuries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from engram_transformers.errors import BadInput
from engram_transformers.evaluation import data

TEXTS = ("entities", "tinyshakespeare")
SEQUENCES = 20
"Windows in a row over which the seed's similarity is followed."
_APART = 7_000_003
"Between the seeds of texts to learn, held-out texts and needles."


@dataclass(frozen=True)
class Held:
    """Texts that are not learnt."""

    ids: Tensor
    "(texts, windows, window)"
    repeats: Tensor
    "The same, bool: what an earlier window said behind the same words, and this one did not yet."


@dataclass(frozen=True)
class Needles:
    """Texts whose last window asks for what an earlier one said; the answer is its end."""

    distance: int
    "Windows between the needle and the question."
    ids: Tensor
    "(needles, windows, window)"
    wrong: Tensor
    "The same texts with another needle in its place, and the same question and answer."
    answers: tuple[int, ...]
    "(needles,): tokens of each answer."


class Text(Protocol):
    """Something to learn, in windows."""

    vocab: int
    window: int
    "Tokens that attention sees."
    kernel: int
    "Tokens by which a memory finds again what stood behind them."

    def batch(self, rows: int, *, windows: int, draw: random.Random) -> Tensor:
        """(rows, windows, window): texts to learn."""
        ...

    def held_out(self, rows: int, *, windows: int) -> Held:
        """Texts that no batch has."""
        ...

    def needles(self, count: int, *, windows: int, distance: int) -> Needles:
        """Needles so many windows before the question."""
        ...

    def shown(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        ...


def text_named(name: str, *, windows: int) -> Text:
    """A text by name.

    Raises:
        DataMissing: it is read from a file that is not on this machine.
        BadInput: it is too short for rows of so many windows.
    """
    return Entities() if name == "entities" else _shakespeare(windows)


# -- generated text ------------------------------------------------------------------------

NAMES = ("Alma", "Bram", "Cleo", "Doro", "Egon", "Fenja", "Gero", "Hilde", "Ilse", "Jost", "Kaya",
         "Lina")  # fmt: skip
THINGS = ("brass", "clay", "coral", "glass", "ivory", "jade", "linen", "pewter", "silk", "slate",
          "wax", "wool")  # fmt: skip
OTHERS = ("wind", "rain", "hill", "road", "gate", "river", "night", "snow")
KEEPS, STOP = "keeps", "."
SAYING = 0.7
"Share of the sentences that say who keeps what."
WORDS = (KEEPS, STOP, *NAMES, *THINGS, *OTHERS)
_ID = {word: number for number, word in enumerate(WORDS)}


class Entities:
    """Sentences such as `Alma keeps brass .`, and others that say nothing."""

    vocab, window, kernel = len(WORDS), 16, 2

    def batch(self, rows: int, *, windows: int, draw: random.Random) -> Tensor:
        """(rows, windows, window): texts to learn."""
        return _stacked([self._text(draw, windows) for _ in range(rows)], windows)

    def held_out(self, rows: int, *, windows: int) -> Held:
        """Texts that no batch has: other draws of who keeps what."""
        ids = self.batch(rows, windows=windows, draw=random.Random(_APART))
        kept = torch.tensor([_ID[thing] for thing in THINGS])
        return Held(ids, repeats(ids, order=3) & torch.isin(ids, kept))

    def needles(self, count: int, *, windows: int, distance: int) -> Needles:
        """Someone who is named in one window alone, among others who are named in all."""
        draw = random.Random(_APART + distance)
        right: list[list[int]] = []
        wrong: list[list[int]] = []
        for _ in range(count):
            name, *others = draw.sample(NAMES, 4)
            thing, other, *rest = draw.sample(THINGS, 5)
            keeps = dict(zip(others, rest, strict=True))
            windows_of = range(windows * Entities.window // 4)
            sentences = [self._sentence(draw, keeps, words=3) for _ in windows_of]
            each = Entities.window // 4
            at = (windows - 1 - distance) * each + draw.randrange(each)
            for found, told in ((right, thing), (wrong, other)):
                sentences[at], sentences[-1] = _said(name, told), _said(name, thing)
                found.append([token for sentence in sentences for token in sentence])
        # The thing and the full stop behind it: an answer that ends.
        return Needles(distance, _stacked(right, windows), _stacked(wrong, windows), (2,) * count)

    def shown(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        return " ".join(WORDS[i] for i in ids)

    def _text(self, draw: random.Random, windows: int) -> list[int]:
        who = draw.sample(NAMES, draw.randint(3, 4))
        keeps = {name: draw.choice(THINGS) for name in who}
        found: list[int] = []
        while len(found) < windows * Entities.window:
            found += self._sentence(draw, keeps, words=draw.randint(2, 4))
        return found[: windows * Entities.window]

    def _sentence(self, draw: random.Random, keeps: dict[str, str], *, words: int) -> list[int]:
        """Who keeps what, or so many words that say nothing."""
        if draw.random() < SAYING:
            name = draw.choice(list(keeps))
            return _said(name, keeps[name])
        return [*(_ID[word] for word in draw.choices(OTHERS, k=words)), _ID[STOP]]


def _said(name: str, thing: str) -> list[int]:
    return [_ID[word] for word in (name, KEEPS, thing, STOP)]


# -- characters ----------------------------------------------------------------------------

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
MODERN = (
    ("iPhone came in ", "2007"),
    ("Python is by ", "Guido van Rossum"),
    ("the web is by ", "Tim Berners-Lee"),
    ("Moon landing in ", "1969"),
    ("electric cars: ", "19th century"),
)
"The seed's five facts, short enough for a window."
PLANTED = 0.75
"Share of the texts to learn into which a made-up sentence is put."
_LETTERS, _DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"


class Characters:
    """A text of characters, with its last tenth held out."""

    vocab, window, kernel = len(ALPHABET), 32, 5

    def __init__(self, text: str) -> None:
        known = {character: number for number, character in enumerate(ALPHABET)}
        tokens = torch.tensor([known.get(each, known[" "]) for each in text])
        cut = len(tokens) * 9 // 10
        self.train, self.rest = tokens[:cut], tokens[cut:]
        self.known = known

    def batch(self, rows: int, *, windows: int, draw: random.Random) -> Tensor:
        """(rows, windows, window): pieces of the part to learn, from anywhere.

        Into most of them something made up is put, more than once.
        """
        ids = self._pieces(self.train, rows, windows, draw).clone()
        for text in ids:
            if draw.random() < PLANTED:
                said = _made_up(draw)
                for window in draw.sample(range(windows), max(2, windows // 2)):
                    self._put(text[window], said)
        return ids

    def held_out(self, rows: int, *, windows: int) -> Held:
        """Pieces of the part that is held out."""
        ids = self._pieces(self.rest, rows, windows, random.Random(_APART))
        return Held(ids, repeats(ids, order=6))

    def needles(self, count: int, *, windows: int, distance: int) -> Needles:
        """The seed's facts, each in held-out text, and asked by its first words."""
        draw = random.Random(_APART + distance)
        ids = self._pieces(self.rest, count, windows, draw)
        right, wrong, sizes = ids.clone(), ids.clone(), []
        for row in range(count):
            cue, answer = MODERN[row % len(MODERN)]
            other = MODERN[(row + 1 + row // len(MODERN) % (len(MODERN) - 1)) % len(MODERN)]
            sizes.append(len(answer))
            for found, fact in ((right, (cue, answer)), (wrong, other)):
                self._put(found[row, windows - 1 - distance], "".join(fact))
                self._put(found[row, -1], cue + answer)
        return Needles(distance, right, wrong, tuple(sizes))

    def shown(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        return "".join(ALPHABET[i] for i in ids)

    def _put(self, window: Tensor, text: str) -> None:
        """Let a window end in a text."""
        window[-len(text) :] = torch.tensor([self.known[each] for each in text])

    def _pieces(self, tokens: Tensor, rows: int, windows: int, draw: random.Random) -> Tensor:
        size = windows * Characters.window
        starts = [draw.randrange(len(tokens) - size + 1) for _ in range(rows)]
        return torch.stack([tokens[i : i + size] for i in starts]).view(rows, windows, -1)


@cache
def _shakespeare(windows: int) -> Characters:
    return characters(data.text("text/tinyshakespeare.txt"), windows=windows)


def characters(text: str, *, windows: int) -> Characters:
    """A text by characters; `BadInput` where it is too short for rows of so many windows."""
    found, size = Characters(text), max(windows, SEQUENCES) * Characters.window
    if len(found.rest) < size:
        raise BadInput(
            f"the text has {len(text):,} characters, of which a tenth is held out, and a row takes "
            f"{size}; use a longer text or fewer windows"
        )
    return found


def _made_up(draw: random.Random) -> str:
    """A sentence that nobody ever said, of the length of a fact."""
    words = ["".join(draw.choices(_LETTERS, k=draw.randint(2, 7))) for _ in range(3)]
    words = [word.capitalize() if draw.random() < 0.5 else word for word in words]
    if draw.random() < 0.4:
        words[-1] = "".join(draw.choices(_DIGITS, k=4))
    return " ".join(words)


# -- what repeats --------------------------------------------------------------------------


def repeats(ids: Tensor, *, order: int) -> Tensor:
    """Which tokens (texts, windows, window) end a run of `order` that an earlier window held.

    The run stands in its window as a whole, and not for the second time.
    """
    found = torch.zeros(ids.shape, dtype=torch.bool)
    for text, windows in enumerate(ids.tolist()):
        earlier: set[tuple[int, ...]] = set()
        for number, window in enumerate(windows):
            own: set[tuple[int, ...]] = set()
            for end in range(order - 1, len(window)):
                run = tuple(window[end - order + 1 : end + 1])
                found[text, number, end] = run in earlier and run not in own
                own.add(run)
            earlier |= own
    return found


def _stacked(texts: Sequence[Sequence[int]], windows: int) -> Tensor:
    return torch.tensor(texts).view(len(texts), windows, -1)
