"""Options of the implicit memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engram_transformers.errors import BadInput
from engram_transformers.memory import Schedule

Form = Literal["slots", "linformer", "original"]
FORMS = ("slots", "linformer", "original")
NORMS = ("l2", "layer", "none")
UPDATES = ("importance", "always")


@dataclass(frozen=True)
class ImplicitConfig:
    """Slots that a sequence writes chunk by chunk, and reads from the next chunk on."""

    layers: tuple[int, ...] | None = None
    "Blocks before which there are slots, counted from 0; None: the middle one."
    form: Form = "slots"
    "How a chunk is written: as tokens (`slots`), by low rank (`linformer`), or the `original`."
    slots: int = 32
    "Slots that each sequence has."
    width: int = 32
    "Numbers in a key; the values of a slot are as wide as the host."
    chunk: int = 32
    "Tokens that are written together, after they were read."
    writes: int = 8
    "Tokens of a chunk that are written at most, or the slots that its low rank makes."
    rate: float = 1.0
    "Strength of what is written: what is stronger stays, and is read before it."
    decay: float = 0.98
    "Share of its strength that a slot keeps from chunk to chunk."
    update: Literal["importance", "always"] = "importance"
    "Whether tokens are written as far as a learned gate finds them important, or all of them."
    reset_every: int = 0
    "Chunks after which the slots are emptied; 0: never."
    norm: Literal["l2", "layer", "none"] = "l2"
    "How keys and queries are brought to one length; `layer` also takes their mean."
    temperature: float = 0.25
    "Divides what queries and keys are compared by: lower is sharper."
    kernel: int = 4
    "Taps of the convolution over states that keys are made of."
    window: int | None = None
    "Tokens that the host sees at once while a text is read; None: as many as it can."
    learning_rate: float = 3e-3
    "Highest learning rate."
    epochs: int = 12
    "Times that every text is trained at most."
    batch: int = 8
    "Texts in one step."
    seed: int = 0
    "Decides where training starts and the order of the steps."

    def __post_init__(self) -> None:
        if self.layers is not None:  # JSON and callers bring lists
            object.__setattr__(self, "layers", tuple(self.layers))
            if not self.layers or len(set(self.layers)) < len(self.layers):
                raise BadInput(f"layers are {self.layers}; name at least one, and none twice")
        _check_choice("form", self.form, FORMS)
        _check_choice("norm", self.norm, NORMS)
        _check_choice("update", self.update, UPDATES)
        for name in ("slots", "width", "chunk", "writes", "kernel"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if self.reset_every < 0:
            raise BadInput(f"reset_every is {self.reset_every}; use 0 for never, or chunks")
        if not self.temperature > 0:
            raise BadInput(f"temperature is {self.temperature}; it has to be above 0")
        for name in ("rate", "decay"):
            if not 0 < getattr(self, name) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}; use more than 0, up to 1")
        if self.window is not None and self.window < 1:
            raise BadInput(f"window is {self.window}; it has to be at least 1 token")
        most = min(self.slots, self.chunk) if self.form == "linformer" else self.slots
        if self.writes > most:
            raise BadInput(
                f"writes is {self.writes}, with {self.slots} slots and chunks of {self.chunk} "
                f"tokens; use up to {most}"
            )
        Schedule.of(self)  # refuses rates and counts that cannot be


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadInput(f"{name} is {value!r}; use one of {', '.join(choices)}")
