"""Runs experiments on one host: teaches a memory as the experiment says, and measures."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engram_transformers.api import Host, OpenMemory
from engram_transformers.attaching import whole_prompts
from engram_transformers.errors import BadInput, CannotForget
from engram_transformers.evaluation.answers import Answered
from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.silence import Bare, bare
from engram_transformers.evaluation.task import Question, Task, drawn, load_task
from engram_transformers.experiments import harm, needle, scores
from engram_transformers.experiments.provenance import provenance
from engram_transformers.experiments.spec import NONE, Experiment
from engram_transformers.memory import Textual, Writable
from engram_transformers.models.tokens import Form
from engram_transformers.registry import config_of
from engram_transformers.types import Fact, Told

EXAMPLES = 8
"Right and wrong answers that a result shows."
CHECKED = 12
"Prompts of each kind on which undoing is checked."
SCORED = 50
"Questions of each group that are asked at a point on the way."


@dataclass
class Taught:
    """What teaching an experiment's facts came to."""

    protocol: str | None = None
    "Facts one by one or together."
    seconds: list[float] = field(default_factory=list)
    "One entry a fact."
    cpu_seconds: list[float] = field(default_factory=list)
    "Likewise, of this process on all cores: what else runs on the machine does not count."
    held: dict[str, bool] = field(default_factory=dict)
    "Whether each fact was right when it was taught, where that was checked."
    refused: list[tuple[str, str]] = field(default_factory=list)
    "Prompt and reason."
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """A result, ready to be written, with the cases behind it."""

    result: dict[str, Any]
    records: list[dict[str, Any]]


class Bench:
    """A host on which experiments are run one after another; close it when done."""

    def __init__(self, host: Host, *, told: Told = lambda what, done, total: None) -> None:
        self.host, self.told = host, told
        self._stack = ExitStack()
        self._open: tuple[str, OpenMemory | None, Taught] | None = None
        self._bare: dict[tuple[Form, tuple[str, ...], bool], Bare] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the memory that the last experiment left open."""
        self._stack.close()
        self._open = None

    def run(self, experiment: Experiment) -> Outcome:
        """Teach, ask and measure.

        Raises:
            UnknownTask, UnknownMemory, BadInput: the experiment names what does not exist.
            DataMissing: the task's data is not on this machine.
        """
        started = time.perf_counter()
        _check(experiment)  # its task is loaded next, before anything is taught
        if experiment.task == "needle":
            self.close()  # it teaches a memory of its own, beside which no other may act
            found, records = needle.measure(self.host, experiment, told=self.told)
        elif experiment.task == "probes":
            found, records = self._harm(experiment)
        else:
            found, records = self._answers(experiment)
        result = {
            **{name: experiment.as_dict()[name] for name in _SHOWN},
            **_plain(found),
            "experiment": experiment.as_dict(),
            "digest": experiment.digest,
            "seconds": round(time.perf_counter() - started, 1),
            "provenance": {**provenance(self.host), "command": experiment.command},
        }
        return Outcome(result, records)

    # -- the two kinds of experiment that teach a task ---------------------------------------

    def _answers(self, experiment: Experiment) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        task = prepared(experiment)
        silent = {g: prompts for g, prompts in task.silent.items() if prompts}
        for prompts in silent.values():
            self._alone(prompts, task.form)
        memory, taught = self._taught(experiment, task)
        cases = {
            group: self._asked(group, questions, task.form)
            for group, questions in _groups(task, experiment.asked).items()
        }
        found = scores.answers(cases, task)
        records = [case.as_dict() for each in cases.values() for case in each]
        for group, prompts in silent.items():
            bare = self._alone(prompts, task.form)
            more, silence = scores.silence(self.host, group, prompts, bare, form=task.form)
            found |= more
            records += silence
        found |= {"n": len(task.facts), "examples": _examples(cases), "data": task.source}
        if memory is not None:
            found |= self._of_memory(memory, taught, task, cases)
        return found, records

    def _of_memory(
        self, memory: OpenMemory, taught: Taught, task: Task, cases: dict[str, list[Answered]]
    ) -> dict[str, Any]:
        """What only a memory has: retention, undo, cost."""
        found: dict[str, Any] = {"refused": taught.refused[:EXAMPLES]}
        found |= {"taught": len(memory), "config": dict(memory.directory.config)}
        found["protocol"] = taught.protocol
        if taught.curve:
            found["curve"] = taught.curve
        absent = {}
        if any(taught.held.values()):
            order = [fact.id for fact in task.facts]
            found |= scores.retention(cases["taught"], taught.held, order)
        prompts = _watched(task)
        found |= scores.pace(self.host, prompts[-1], form=task.form)
        if not len(memory):
            return found
        found |= scores.cost(memory, taught.seconds, taught.cpu_seconds)
        try:
            bare = self._alone(prompts, task.form)
            found["undo_exact"] = scores.undo(self.host, memory, prompts, bare, form=task.form)
        except CannotForget as reason:
            absent["undo_exact"] = str(reason).replace(str(memory.directory.path), "this memory")
        return found | ({"absent": absent} if absent else {})

    def _harm(self, experiment: Experiment) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        task = prepared(replace(experiment, task=experiment.after))
        memory, _ = self._taught(experiment, task)
        n = 0 if memory is None else len(memory)
        found, records = harm.measure(self.host, seed=experiment.seed, told=self.told)
        return {**found, "n": len(task.facts), "taught": n}, records

    # -- teaching --------------------------------------------------------------------------

    def _taught(self, experiment: Experiment, task: Task) -> tuple[OpenMemory | None, Taught]:
        """The experiment's memory, taught: that of the last experiment where it is the same."""
        if self._open is None or self._open[0] != experiment.teaching or experiment.points:
            self.close()
            # Taught as it will be asked: what is trained in a chat need not show in plain text.
            with scores.asked_as(self.host, task.form):
                memory, taught = self._teach(experiment, task)
            self._open = (experiment.teaching, memory, taught)
        return self._open[1], self._open[2]

    def _teach(self, experiment: Experiment, task: Task) -> tuple[OpenMemory | None, Taught]:
        if experiment.memory == NONE:
            return None, Taught()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory())) / "memory"
        memory = self._stack.enter_context(
            self.host.open_memory(folder, kind=experiment.memory, **experiment.options)
        )
        taught = Taught(_protocol(experiment, memory))
        if experiment.distractors:
            others = distractors(experiment.distractors, task, seed=experiment.seed)
            memory.teach(others, check=False, progress=self._ticker("distractors", len(others)))
        for size, facts in _portions(experiment, lesson(experiment, task)):
            self._teach_portion(memory, facts, experiment, taught)
            if experiment.points:
                taught.curve.append(self._point(memory, task, size, taught))
        _tell(memory, task)
        return memory, taught

    def _teach_portion(
        self, memory: OpenMemory, facts: Sequence[Fact], experiment: Experiment, taught: Taught
    ) -> None:
        one_by_one = taught.protocol == "sequential"
        check = experiment.check and not isinstance(memory.memory, Textual)
        ticker = self._ticker("teaching", len(facts))
        for batch in [[fact] for fact in facts] if one_by_one else [list(facts)]:
            started = time.process_time()
            receipt = memory.teach(batch, check=check, progress=ticker)
            spent = time.process_time() - started
            taught.seconds += [receipt.seconds / len(batch)] * len(batch)
            taught.cpu_seconds += [spent / len(batch)] * len(batch)
            if check:
                known = {*receipt.taught, *receipt.known}
                taught.held |= {fact.id: fact.id in known for fact in batch}
            taught.refused += [(one.fact.prompt, one.reason) for one in receipt.refused]

    def _point(self, memory: OpenMemory, task: Task, size: int, taught: Taught) -> dict[str, Any]:
        """Scores after the first `size` facts."""
        _tell(memory, task)
        part = replace(task, facts=task.facts[:size])
        ids = {fact.id for fact in part.facts}
        asked = {g: tuple(q for q in qs if q.fact in ids) for g, qs in task.asked.items()}
        groups = _groups(replace(part, asked=asked), SCORED)
        cases = {
            group: self._asked(group, groups[group], task.form)
            for group in ("taught", "paraphrase")
            if groups.get(group)
        }
        found = scores.answers(cases, replace(task, categories={}))
        found |= scores.cost(memory, taught.seconds, taught.cpu_seconds)
        found |= scores.pace(self.host, _watched(task)[-1], form=task.form)
        return {"T": size} | _plain(found)

    # -- asking ----------------------------------------------------------------------------

    def _asked(self, group: str, questions: Sequence[Question], form: Form) -> list[Answered]:
        ticker = self._ticker(f"asking, {group}", len(questions))
        return scores.ask(self.host, group, questions, form=form, progress=ticker)

    def _alone(self, prompts: Sequence[str], form: Form) -> Bare:
        """What the bare host makes of prompts, computed once."""
        # Batches are made otherwise where a route has to see prompts whole.
        key = (form, tuple(prompts), whole_prompts(self.host.model))
        if key not in self._bare:
            with self.host.bare():
                ids = self.host.prompts(prompts, form=form)
            ticker = self._ticker("reading with the bare host", len(prompts))
            self._bare[key] = bare(
                self.host.adapter, ids, stop=self.host.tokens.stop, progress=ticker
            )
        return self._bare[key]

    def _ticker(self, what: str, total: int) -> Callable[[int], None]:
        return lambda done: self.told(what, done, total)


_SHOWN = ("task", "memory", "variant", "seed", "options", "control", "protocol")


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """JSON-ready data, without metrics of which there is no case."""
    measured = {name: v for name, v in found.items() if isinstance(v, Measure)}
    rest = {name: v for name, v in found.items() if name not in measured}
    return {name: v.as_dict() for name, v in measured.items() if v.n} | rest


def check_experiments(*experiments: Experiment) -> None:
    """Raise what is wrong with experiments before any work is done for them."""
    for one in experiments:
        _check(one)
    others = [one for one in experiments if one.task != "needle"]
    for task in {one.after if one.task == "probes" else one.task for one in others}:
        load_task(task)


def _check(experiment: Experiment) -> None:
    if experiment.memory != NONE:
        config_of(experiment.memory, experiment.options)
    if experiment.control == "context" and experiment.task != "needle":
        raise BadInput(f"the control 'context' is for needle, not for {experiment.task}")


def prepared(experiment: Experiment) -> Task:
    """The experiment's task, cut to size."""
    return load_task(experiment.task).cut(
        experiment.n, seed=experiment.seed, silent=experiment.silent
    )


def lesson(experiment: Experiment, task: Task) -> list[Fact]:
    """The facts that are taught: none, or with each other's answers, for a control."""
    if experiment.control == "empty":
        return []
    if experiment.control == "shuffled":
        return shuffled(task.facts)
    return list(task.facts)


def shuffled(facts: Sequence[Fact]) -> list[Fact]:
    """The facts, each with the answer of another one that answers otherwise."""
    ranked = sorted(range(len(facts)), key=lambda i: facts[i].answer)
    # Half a turn in sorted order passes over equal answers, unless most are equal.
    half = len(facts) // 2
    dealt = {i: facts[ranked[(at + half) % len(facts)]].answer for at, i in enumerate(ranked)}
    new = [replace(fact, answer=dealt[i]) for i, fact in enumerate(facts)]
    return [fact for fact, old in zip(new, facts, strict=True) if fact.answer != old.answer]


def distractors(count: int, task: Task, *, seed: int) -> list[Fact]:
    """Facts of another set, none of which asks what the task asks."""
    other = "entity_questions" if task.name == "wikidata_cloze" else "wikidata_cloze"
    asked = {fact.prompt for fact in task.facts}
    facts = drawn(load_task(other).facts, count + len(asked), seed=seed)
    return [fact for fact in facts if fact.prompt not in asked][:count]


def _protocol(experiment: Experiment, memory: OpenMemory) -> str:
    if experiment.protocol is not None:
        return experiment.protocol
    return "sequential" if isinstance(memory.memory, Writable) else "together"


def _portions(
    experiment: Experiment, facts: Sequence[Fact]
) -> Iterator[tuple[int, Sequence[Fact]]]:
    """The facts in portions that end at the points at which scores are wanted."""
    ends = sorted({*(p for p in experiment.points if p < len(facts)), len(facts)})
    for start, end in zip([0, *ends], ends, strict=False):
        yield end, facts[start:end]


def _tell(memory: OpenMemory, task: Task) -> None:
    """An oracle is told what other wordings ask for: that is what makes it one."""
    tell = getattr(memory.memory, "tell", None)
    if tell is not None:
        tell({q.text: q.fact for qs in task.asked.values() for q in qs})


def _groups(task: Task, most: int | None) -> dict[str, tuple[Question, ...]]:
    groups = {"taught": task.taught, **task.asked}
    return {group: tuple(drawn(qs, most, seed=0)) for group, qs in groups.items() if qs}


def _watched(task: Task) -> list[str]:
    """Prompts on which undoing is checked: taught ones, then silent ones."""
    taught = [fact.prompt for fact in task.facts[:CHECKED]]
    return [*taught, *(p for prompts in task.silent.values() for p in prompts[:CHECKED])]


def _examples(cases: dict[str, list[Answered]]) -> dict[str, list[dict[str, str]]]:
    """Some right and wrong answers of every group."""
    shown: dict[str, list[dict[str, str]]] = {"right": [], "wrong": []}
    for group, each in cases.items():
        for name, good in (("right", True), ("wrong", False)):
            some = [case for case in each if case.exact is good][: EXAMPLES // 2]
            shown[name] += [
                {"group": group, "asked": c.asked, "wanted": c.wanted[:300], "said": c.said[:300]}
                for c in some
            ]
    return shown
