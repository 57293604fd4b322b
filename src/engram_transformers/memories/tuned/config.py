"""Options of the trained memories that keep a module of their own at each late block."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.memory import Schedule


@dataclass(frozen=True)
class FineTuneConfig:
    """A full-rank change of the late output projections of the feed-forwards."""

    layers: int = 10
    "How many of the last blocks are changed."
    learning_rate: float = 1e-3
    "Highest learning rate."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides the order of the steps."

    def __post_init__(self) -> None:
        Schedule.of(self)  # refuses rates and counts that cannot be


@dataclass(frozen=True)
class BottleneckConfig:
    """A residual two-layer bottleneck behind each late block."""

    layers: int = 10
    "How many of the last blocks have one behind them."
    width: int = 140
    "Units between the two layers; 140 makes as many parameters as the default LoRA has."
    learning_rate: float = 4e-3
    "Highest learning rate."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides where training starts and the order of the steps."

    def __post_init__(self) -> None:
        Schedule.of(self)  # refuses rates and counts that cannot be


@dataclass(frozen=True)
class BiasConfig:
    """A bias vector behind each block."""

    layers: int | None = None
    "How many of the last blocks have one behind them; None is all of them."
    learning_rate: float = 5e-2
    "Highest learning rate."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides the order of the steps."

    def __post_init__(self) -> None:
        Schedule.of(self)  # refuses rates and counts that cannot be
