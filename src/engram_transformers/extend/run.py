"""One training from facts to a memory directory, with checkpoints, a check, a plot and a card.

In its folder: `run.json` (what is trained, on what), `checkpoint-<step>` (the newest two),
`memory` (the memory directory), `log.json`, `loss.png` and `README.md`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from engram_transformers.api import Host
from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput, TrainingDiverged
from engram_transformers.experiments.provenance import origin
from engram_transformers.memory import Schedule, Trainable
from engram_transformers.registry import config_of, memory_class, option_names
from engram_transformers.stores.files import replace_file
from engram_transformers.stores.text import normalise
from engram_transformers.training.checkpoints import last_complete
from engram_transformers.training.fit import enough
from engram_transformers.training.saved import save_memories
from engram_transformers.training.trainer import EngramTrainer, arguments
from engram_transformers.types import Fact, Told

DESCRIPTION, LOG, MEMORY = "run.json", "log.json", "memory"
PAUSES = 20
"Checkpoints, and looks at held-out facts, in a run at most."
LINES = 100
"Lines of the log in a run, about."
KEPT = 2
"Checkpoints that stay."


@dataclass(frozen=True)
class Options:
    """What is trained, and how; what is None is as the kind's configuration says."""

    kind: str = "engram"
    memory: Mapping[str, Any] = field(default_factory=dict)
    "Options of the kind."
    lora: Mapping[str, Any] | None = None
    "Options of a LoRA that is trained together with it; None: without one."
    epochs: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    packing: bool = False
    seed: int | None = None


@dataclass(frozen=True)
class Trained:
    """What a training did, and what was seen of it afterwards."""

    folder: Path
    facts: int
    holding: tuple[str, ...]
    "Ids of the facts whose every wording the host then answers, to the end token."
    refused: tuple[str, ...]
    "Ids of the facts that do not hold; the memory does not list them."
    held_out: dict[str, float] | None
    "`eval_loss`, and `eval_exact` before and after, on facts that were not trained."
    steps: int
    log: tuple[dict[str, float], ...]
    resumed: bool
    seconds: float

    @property
    def path(self) -> Path:
        """The memory directory."""
        return self.folder / MEMORY


def train_memory(
    host: Host,
    facts: Sequence[Fact],
    folder: str | Path,
    *,
    held_out: Sequence[Fact] = (),
    options: Options | None = None,
    resume: bool = False,
    told: Told = lambda what, done, total: None,
    said: Callable[[dict[str, float]], None] = lambda log: None,
) -> Trained:
    """Train a new memory on facts, check each by what the host then says, and store what holds.

    Args:
        held_out: facts that are asked now and then, and never trained.
        resume: go on from the newest checkpoint of an interrupted run of the same kind.
        said: is told losses and rates as they come.

    Raises:
        BadInput: there is nothing to train on, two facts contradict each other, the kind cannot
            be trained, the folder holds another run, there is nothing to resume, or a step does not
            fit into memory.
        TrainingDiverged: the loss is no number any more; the checkpoints stay.
    """
    folder, options, started = Path(folder), options or Options(), time.perf_counter()
    if not facts:
        raise BadInput("there is nothing to train on: no facts were given")
    _check_agreeing(facts)
    _check_folder(folder, resume=resume)
    memories = _memories(host, options)
    usual = _told_otherwise(memories[0].schedule, options)
    with ExitStack() as standing:
        for memory in memories:
            standing.enter_context(attach(host.model, memory))
        trainer = _trainer(host, usual, facts, held_out, folder, packing=options.packing)
        schedule = _paced(trainer, usual, options)
        _claim(folder, _description(host, facts, held_out, options, schedule), resume=resume)
        trainer.add_callback(_Telling(told, said))
        with _what_is_left(trainer):
            before = trainer.evaluate() if held_out else {}
            trainer.train(resume_from_checkpoint=resume)
            after = trainer.evaluate() if held_out else {}
        good = _holding(host, facts, told)
    receipt = {"checked": True, "seconds": round(time.perf_counter() - started, 3)}
    save_memories(folder / MEMORY, trainer.memories, host.identity, facts=good, receipt=receipt)
    holding = {fact.id for fact in good}
    found = Trained(
        folder=folder,
        facts=len(facts),
        holding=tuple(fact.id for fact in good),
        refused=tuple(fact.id for fact in facts if fact.id not in holding),
        held_out={**after, **{f"{name}_before": value for name, value in before.items()}} or None,
        steps=trainer.state.global_step,
        log=tuple(trainer.state.log_history),
        resumed=resume,
        seconds=time.perf_counter() - started,
    )
    replace_file(folder / LOG, [json.dumps(found.log, indent=1).encode()])
    return found


@contextmanager
def _what_is_left(trainer: EngramTrainer) -> Iterator[None]:
    """What went wrong in a training, with what is left of it."""
    try:
        yield
    except TrainingDiverged as error:
        kept = f"; {trainer.good} opens like any memory" if trainer.good else ""
        raise TrainingDiverged(f"{error}, in another folder{kept}") from error


def _memories(host: Host, options: Options) -> list[Any]:
    _check_said_once(options)
    made = [_memory(host, options.kind, options.memory, seed=options.seed)]
    if options.lora is not None:
        if options.kind == "lora":
            raise BadInput("a LoRA is trained beside a memory of another kind; name that kind")
        made.append(_memory(host, "lora", options.lora, seed=made[0].schedule.seed))
    return made


def _check_said_once(options: Options) -> None:
    for name in ("epochs", "batch", "learning_rate", "seed"):
        run, own = getattr(options, name), options.memory.get(name)
        if None not in (run, own) and run != own:
            raise BadInput(
                f"{name} is {run} for the training, and {own} among the options of the memory; "
                "give it once"
            )


def _memory(host: Host, kind: str, given: Mapping[str, Any], *, seed: int | None) -> Any:
    own = {} if seed is None or "seed" not in option_names(kind) else {"seed": seed}
    config = config_of(kind, {**own, **given})
    memory = memory_class(kind).open(host.adapter, host.tokens, config)
    if not isinstance(memory, Trainable):
        raise BadInput(f"a memory of kind {kind} is not trained; 'engram teach' fills it")
    return memory


def _trainer(
    host: Host,
    schedule: Schedule,
    facts: Sequence[Fact],
    held_out: Sequence[Fact],
    folder: Path,
    *,
    packing: bool,
) -> EngramTrainer:
    args = arguments(
        schedule,
        folder,
        eval_strategy="steps" if held_out else "no",
        save_strategy="steps",
        save_total_limit=KEPT,
        disable_tqdm=True,
        use_cpu=host.adapter.device.type == "cpu",
    )
    trainer = EngramTrainer(
        host.model,
        args,
        train_dataset=list(facts),
        eval_dataset=list(held_out) or None,
        packing=packing,
        tokenizer=host.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _told_otherwise(usual: Schedule, options: Options) -> Schedule:
    """A kind's own schedule, but for what a run was told; too few epochs are mended later."""
    told = {name: getattr(options, name) for name in ("learning_rate", "epochs", "batch")}
    return dataclasses.replace(usual, **{name: one for name, one in told.items() if one})


def _paced(trainer: EngramTrainer, schedule: Schedule, options: Options) -> Schedule:
    """Have a trainer go through enough epochs, and pause now and then; the schedule it then has.

    How many steps an epoch has is known once texts are in batches: packed ones are few.
    """
    steps = len(trainer.train_dataset.batches)
    epochs = options.epochs or enough(schedule.epochs, steps=steps)
    args = trainer.args
    args.num_train_epochs = epochs
    args.logging_steps = max(1, steps * epochs // LINES)
    # An epoch of a few facts is over in no time.
    args.eval_steps = args.save_steps = max(steps, steps * epochs // PAUSES)
    return dataclasses.replace(schedule, epochs=epochs)


class _Telling(TrainerCallback):  # type: ignore[misc]
    def __init__(self, told: Told, said: Callable[[dict[str, float]], None]) -> None:
        self.told, self.said, self.done = told, said, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.told("training", state.global_step - self.done, state.max_steps)
        self.done = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.said({"step": state.global_step, "steps": state.max_steps, **(logs or {})})


def _holding(host: Host, facts: Sequence[Fact], told: Told) -> list[Fact]:
    """The facts that the host now says, each in every wording."""
    questions = _questions(facts)
    verdicts = host.check(facts, progress=lambda n: told("checking", n, questions))
    return [fact for fact, verdict in zip(facts, verdicts, strict=True) if verdict.holds]


def _questions(facts: Sequence[Fact]) -> int:
    return sum(len(fact.questions) for fact in facts)


def _description(
    host: Host,
    facts: Sequence[Fact],
    held_out: Sequence[Fact],
    options: Options,
    schedule: Schedule,
) -> dict[str, Any]:
    return {
        "host": host.identity.id,
        "fingerprint": host.identity.fingerprint,
        "options": dataclasses.asdict(options),
        "facts": {"n": len(facts), "digest": _digest(facts)},
        "held_out": {
            "n": len(held_out),
            "questions": _questions(held_out),
            "digest": _digest(held_out),
        },
        "schedule": dataclasses.asdict(schedule),
        "provenance": origin(gpu=host.adapter.device.type == "cuda"),
    }


def _digest(facts: Sequence[Fact]) -> str:
    text = json.dumps([fact.as_dict() for fact in facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_agreeing(facts: Sequence[Fact]) -> None:
    """Two answers to one question cannot both be learned."""
    known: dict[str, Fact] = {}
    for fact in facts:
        for question in fact.questions:
            other = known.setdefault(normalise(question), fact)
            if normalise(other.answer) != normalise(fact.answer):
                raise BadInput(
                    f"two facts answer {question!r}: {other.answer!r} and {fact.answer!r}; leave "
                    "one of them out"
                )


def _check_folder(folder: Path, *, resume: bool) -> None:
    """See early that there is a training to go on with, or none."""
    if resume and not (folder / DESCRIPTION).exists():
        raise BadInput(f"{folder} holds no training to resume: no {DESCRIPTION}")
    if resume and last_complete(folder) is None:
        raise BadInput(f"{folder} has no complete checkpoint to resume; start without --resume")
    if (folder / MEMORY).exists():
        raise BadInput(f"{folder} holds a finished training; name another folder")
    if not resume and last_complete(folder) is not None:
        raise BadInput(f"{folder} holds an interrupted training; --resume goes on with it")


def _claim(folder: Path, description: dict[str, Any], *, resume: bool) -> None:
    """Make the folder this run's, or see that it is."""
    path = folder / DESCRIPTION
    if resume:
        _check_same(path, description)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, [json.dumps(description, indent=1).encode()])


def _check_same(path: Path, description: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path.parent} holds no training to resume: no {path.name}") from error
    now, before = _flat(json.loads(json.dumps(description))), _flat(found)
    differing = [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in {**before, **now}
        # Another day, or another machine, may go on.
        if before.get(name) != now.get(name) and not name.startswith("provenance.")
    ]
    if differing:
        raise BadInput(
            f"the training in {path.parent} was begun otherwise: {'; '.join(differing)}; resume it "
            "with the same facts and options, on the same host"
        )


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= (
            _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
        )
    return found
