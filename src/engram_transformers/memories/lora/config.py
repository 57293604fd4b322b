"""Options of the LoRA memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoraConfig:
    """A low-rank change of every linear layer of the late blocks."""

    layers: int = 10
    "How many of the last blocks are changed."
    rank: int = 16
    "Of each change."
    alpha: float = 32.0
    "A change is multiplied by alpha / rank."
    learning_rate: float = 1e-3
    "Highest learning rate."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides where training starts and the order of the steps."


@dataclass(frozen=True)
class GatedLoraConfig:
    """A low-rank change of the late blocks, mixed with the host's own words by a gate."""

    layers: int = 10
    "How many of the last blocks are changed."
    rank: int = 16
    "Of each change."
    alpha: float = 32.0
    "A change is multiplied by alpha / rank."
    threshold: float = 0.1
    "Where the gate is open less far than this, the host speaks alone."
    guidance: float = 1.0
    "Weight in the loss of how well the gate tells answers to taught questions from the rest."
    rehearse: int = 24
    "Neutral questions on which it is trained to say what the host says alone, 40 at most."
    learning_rate: float = 1e-3
    "Highest learning rate."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides where training starts and the order of the steps."
