"""What an experiment is: a task, a memory, and how the one is tried on the other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engram_transformers.errors import BadInput

Control = Literal["shuffled", "empty", "context"]
Protocol = Literal["sequential", "together"]

NONE = "none"
"The memory of an experiment on the bare host."


@dataclass(frozen=True)
class Experiment:
    """One memory on one task. Everything in it decides about the numbers, and nothing else does."""

    task: str
    memory: str
    variant: str = "default"
    n: int | None = 300
    "Facts that are taught, drawn with the seed; None for all."
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    "Of the memory's configuration."
    control: Control | None = None
    "A memory of something else, one of nothing, or for needles the fact in the context."
    protocol: Protocol | None = None
    "Facts one by one or together; None: one by one where the memory can."
    check: bool = True
    "Whether teaching checks what it teaches."
    silent: int = 300
    "Prompts of each silent group, at most."
    asked: int | None = None
    "Questions of each group, at most; None for all."
    points: tuple[int, ...] = ()
    "Numbers of facts at which the memory is scored on its way."
    distractors: int = 0
    "Facts of another task that are taught before."
    after: str = "zsre"
    "For probes of harm: the task whose facts are taught."

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(self.points))
        if self.control not in (None, "shuffled", "empty", "context"):
            raise BadInput(f"control is {self.control!r}; use 'shuffled', 'empty' or 'context'")
        if self.protocol not in (None, "sequential", "together"):
            raise BadInput(f"protocol is {self.protocol!r}; use 'sequential' or 'together'")
        if self.n is not None and self.n < 1:
            raise BadInput(f"n is {self.n}; at least one fact has to be taught")

    @property
    def name(self) -> str:
        """What it is called in lists and file names."""
        parts = [self.task, self.memory, self.variant]
        return "-".join([*parts, f"n{self.n or 'all'}", f"s{self.seed}"])

    @property
    def teaching(self) -> str:
        """Equal for experiments that teach the same facts to the same memory."""
        task = self.after if self.task == "probes" else self.task
        fields = {**self.as_dict(), "task": task}
        for name in ("silent", "asked", "points", "after", "variant"):
            del fields[name]
        return json.dumps(fields, sort_keys=True)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**dataclasses.asdict(self), "points": list(self.points)}

    @property
    def command(self) -> str:
        """The command line that runs it by itself."""
        given = [f"--memory {self.memory}", "--all" if self.n is None else f"--n {self.n}"]
        given += [f"--set {name}={value}" for name, value in self.options.items()]
        given += ["--no-check"] if not self.check else []
        given += [f"--points {','.join(map(str, self.points))}"] if self.points else []
        defaults = Experiment(self.task, self.memory)
        for name in ("seed", "control", "protocol", "asked", "silent", "distractors", "after"):
            value = getattr(self, name)
            if value != getattr(defaults, name):
                given.append(f"--{name} {value}")
        return " ".join(["engram eval", self.task, *given])

    @property
    def digest(self) -> str:
        """Changes with anything that decides about the numbers."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_experiment(path: Path, root: Path) -> Experiment:
    """The experiment of a config file at `<task>/<memory>/<variant>.json` under a root."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}") from error
    parts = path.relative_to(root).with_suffix("").parts
    if len(parts) != 3 or not isinstance(given, dict):
        raise BadInput(f"{path}: an experiment is one JSON object at TASK/MEMORY/VARIANT.json")
    known = {f.name for f in dataclasses.fields(Experiment)} - {"task", "memory", "variant"}
    for name in given:
        if name not in known:
            raise BadInput(f"{path}: an experiment has no {name!r}; it has {sorted(known)}")
    return Experiment(*parts, **given)


def read_experiments(root: Path) -> list[Experiment]:
    """All experiments under a folder."""
    if not root.is_dir():
        raise BadInput(f"{root} is no folder of experiments (TASK/MEMORY/VARIANT.json)")
    return [read_experiment(path, root) for path in sorted(root.rglob("*.json"))]
