"""What prompts look like to a host: their mean activation, and how alike their masks are.

Forty questions about nothing in particular are the background; of sixteen of them there is another
wording, and a near miss: the same question about something else. Near misses can be as near as
rewordings, which is why the wording has to agree too.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engram_transformers.errors import HostMismatch, StoreDamaged
from engram_transformers.memories.memoir.fingerprint import TopHashFingerprinter
from engram_transformers.memories.memoir.passes import Passes
from engram_transformers.memories.memoir.texts import grouped, text_of
from engram_transformers.models.neutral import NEUTRAL
from engram_transformers.models.tokens import HostTokens

ACTIVE = 2 / 7
"Share of the features that a mask has, as published (4,096 of 14,336)."
REWORDED = {
    0: ("On Saturdays, when does the shop open?", "What time does the bank open on Saturday?"),
    1: ("The ceiling of the old chapel was painted by whom?", "Who painted the gate of the farm?"),
    2: ("What is the birthplace of the novel's author?", "Where was the author of the song born?"),
    4: ("What is the population of the village by the lake?", "How many people live in the fort?"),
    5: ("What do people speak in the northern valley?", "Which language is spoken in the harbour?"),
    7: ("When was the river bridge completed?", "In which year was the tunnel finished?"),
    8: ("Who directed the lighthouse film?", "Who is the director of the film about the circus?"),
    10: ("After the final, which team did the goalkeeper sign for?", "Which team did he leave?"),
    13: ("Who was the harbour museum's founder?", "Who founded the school in the old town?"),
    14: (
        "What is the train's travel time to the capital?",
        "How long does the bus take to the lake?",
    ),
    15: ("For her work, which prize was the scientist given?", "What award did the actor receive?"),
    16: (
        "What is the genus of the small yellow flower?",
        "Which genus does the grey bird belong to?",
    ),
    22: ("What is the price of a concert ticket?", "How much does a seat on the ferry cost?"),
    24: ("Who was the architect of the tower at the station?", "Who designed the bridge?"),
    31: ("Who composed the play's music?", "Who wrote the music for the opera?"),
    39: ("Which mountain is the country's highest?", "What is the deepest lake of the country?"),
}
"Another wording and a near miss of questions in `NEUTRAL`, by their place there."


@dataclass(frozen=True)
class Usual:
    """What is usual for a host."""

    mean: Tensor
    "(features,): the activation of a question on average."
    chance: float
    "Overlap of a question's mask with the nearest of forty others', in the mean."
    loose: float
    "The least overlap worth a look at the words: a tenth below chance and below any rewording."
    strict: float
    "The overlap that tells rewordings from near misses and unrelated questions best, by itself."

    def threshold(self, match: str | None) -> float:
        """The overlap from which an edit is looked at, by what has to agree beside the mask."""
        if match == "mask":
            return self.strict
        # What an encoder compares too need not be told apart by its mask.
        return self.loose if match == "words" else round(0.9 * self.loose, 4)

    def written(self) -> str:
        """As text, for the configuration."""
        raw = base64.b64encode(self.mean.half().numpy().tobytes()).decode()
        numbers = (self.chance, self.loose, self.strict)
        return " ".join([*(f"{number:.4f}" for number in numbers), raw])

    @staticmethod
    def read(text: str, *, features: int) -> Usual:
        """What `written` made.

        Raises:
            StoreDamaged: it is no such text.
            HostMismatch: it is of another width.
        """
        try:
            *numbers, coded = text.split(" ")
            raw = base64.b64decode(coded, validate=True)
            mean = torch.from_numpy(np.frombuffer(raw, np.float16).astype(np.float32))
            usual = Usual(mean, *map(float, numbers))
        except (ValueError, TypeError, binascii.Error) as error:
            raise StoreDamaged(f"host_usual of this memory cannot be read: {error}") from error
        if len(mean) != features:
            raise HostMismatch(
                f"this memory was made for activations of {len(mean)} features; the host has "
                f"{features} there"
            )
        return usual


def usual_of(passes: Passes, tokens: HostTokens, *, top_k: int | None, seed: int) -> Usual:
    """What is usual for a host, found out by reading questions with it.

    Args:
        top_k, seed: of the masks.
    """
    # How a host can be run is found out with the first batch, which had better be a small one.
    _means(passes, tokens, NEUTRAL[:1])
    means = _means(passes, tokens, NEUTRAL)
    # As it will be read again from the configuration, where it has half the precision.
    mean = means.mean(dim=0).half().float()
    masks = fingerprinter_for(mean, top_k=top_k, seed=seed)
    stored = masks.generate_mask(means)
    again, near = (
        masks.generate_mask(_means(passes, tokens, [pair[i] for pair in REWORDED.values()]))
        for i in (0, 1)
    )
    own = (again * stored[list(REWORDED)]).sum(dim=1) / masks.top_k
    missed = (near @ stored.T).max(dim=1).values / masks.top_k
    others = (stored @ stored.T).fill_diagonal_(0).max(dim=1).values / masks.top_k
    chance = float(others.mean())
    return Usual(
        mean,
        chance=round(chance, 4),
        loose=round(0.9 * min(chance, float(own.min())), 4),
        strict=round(_dividing(own, torch.cat([missed, others])), 4),
    )


def fingerprinter_for(mean: Tensor, *, top_k: int | None, seed: int) -> TopHashFingerprinter:
    """What makes the masks of a host whose activations are like `mean` (features,) as a rule."""
    count = max(1, round(len(mean) * ACTIVE)) if top_k is None else top_k
    made = TopHashFingerprinter(len(mean), count, seed=seed)
    made.set_background(mean[None])
    return made


def _dividing(own: Tensor, other: Tensor) -> float:
    """The value from which most of `own` and fewest of `other` are found."""
    values = own.sort().values
    found = (own >= values[:, None]).float().mean(dim=1)
    mistaken = (other >= values[:, None]).float().mean(dim=1)
    return float(values[(found - mistaken).argmax()])


def _means(passes: Passes, tokens: HostTokens, questions: Sequence[str]) -> Tensor:
    texts = [[text_of(question, None, tokens)] for question in questions]
    read = [passes.read([texts[i][0] for i in group]) for group in grouped(texts)]
    return torch.cat([passes.means(batch) for batch in read]).cpu()
