"""The facade: a host that can be asked, and memories that it opens, teaches and forgets."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Self

from engram_transformers.attaching import acting, attach, attached, detach, silenced
from engram_transformers.errors import BadInput, Interrupted, StoreDamaged
from engram_transformers.evaluation.check import Trial, Verdict, check
from engram_transformers.evaluation.generate import generate
from engram_transformers.memory import Textual, Trainable, Writable
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.embedded import EMBEDDED
from engram_transformers.models.load import LoadedHost, load_host
from engram_transformers.models.tokens import Form, Talk
from engram_transformers.registry import config_of, memory_class
from engram_transformers.stores.directory import Directory, Stats, beside, is_memory
from engram_transformers.stores.records import Stored, Write
from engram_transformers.stores.who import user
from engram_transformers.training.account import Account
from engram_transformers.training.course import Course
from engram_transformers.training.lesson import Lesson
from engram_transformers.training.plan import Book
from engram_transformers.types import Fact, Firing, HostIdentity, OnConflict, Progress, Receipt

SHARED = "no single fact fires in a trained memory, which acts on every token"


def load(id: str = EMBEDDED, **options: Any) -> Host:
    """Load a host: the embedded one, a Hugging Face id, a local folder or a `.gguf` file.

    Options are those of `models.load.load_host`: `dtype`, `device`, `trust_remote_code`.
    """
    loaded = load_host(id, **options)
    return Host(loaded.model, loaded.tokenizer, loaded.identity)


class Host:
    """A language model with its tokenizer; `model` stays an ordinary Hugging Face model."""

    def __init__(self, model: Any, tokenizer: Any, identity: HostIdentity) -> None:
        self.model, self.tokenizer, self.identity = model, tokenizer, identity
        self.adapter = Adapter(model)
        self.tokens = LoadedHost(model, tokenizer, identity).tokens

    def open_memory(
        self,
        path: str | os.PathLike[str],
        *,
        kind: str | None = None,
        read_only: bool = False,
        **options: Any,
    ) -> OpenMemory:
        """Open a memory directory and attach it, creating it where there is none.

        Options are the fields of the kind's configuration. The kind (`lookup` for a new memory,
        unless said otherwise) and the options of an existing one cannot be changed; naming
        others is an error.
        """
        if not is_memory(path) and not read_only:
            return self._create_memory(path, kind=kind or "lookup", options=options)
        directory = Directory.open(path, writable=not read_only)
        try:
            directory.check_host(self.identity)
            _check_options(directory, options, kind=kind)
            memory = self._memory(directory.kind, directory.config)
            others = self._beside(directory) if isinstance(memory, Trainable) else []
            return OpenMemory(self, memory, directory, others)
        except BaseException:
            directory.close()
            raise

    def _create_memory(
        self, path: str | os.PathLike[str], *, kind: str, options: Mapping[str, Any]
    ) -> OpenMemory:
        memory = self._memory(kind, options)
        config = dataclasses.asdict(memory.config)
        directory = Directory.create(path, kind=kind, config=config, host=self.identity)
        return OpenMemory(self, memory, directory)

    def _beside(self, directory: Directory) -> list[Any]:
        """What was trained together with a memory, so that neither is whole without the other."""
        found = []
        for path in beside(directory.path):
            with Directory.open(path) as other:
                other.check_host(self.identity)
                found.append(self._memory(other.kind, other.config))
                _load_tensors(found[-1], other)
        return found

    def _memory(self, kind: str, options: Mapping[str, Any]) -> Any:
        config = config_of(kind, options)
        return memory_class(kind).open(self.adapter, self.tokens, config)

    def ask(self, question: str, *, max_new_tokens: int = 128, streamer: Any = None) -> str:
        """The host's answer to one question, through its chat template if it has one.

        A `streamer` of transformers is told each token as it is written.
        """
        return self.ask_all([question], max_new_tokens=max_new_tokens, streamer=streamer)[0]

    def ask_all(
        self,
        questions: Sequence[str],
        *,
        max_new_tokens: Sequence[int] | int,
        form: Form | None = None,
        progress: Progress = lambda done: None,
        streamer: Any = None,
    ) -> list[str]:
        """Greedy answers to questions, each asked by itself; `form` None asks as `ask` does."""
        form = form or self.tokens.ask_form
        written = self.generate(
            self.prompts(questions, form=form),
            max_new_tokens=max_new_tokens,
            progress=progress,
            streamer=streamer,
        )
        return [self.tokens.decode_answer(ids) for ids in written]

    def prompts(self, questions: Sequence[str], *, form: Form) -> list[list[int]]:
        """The token ids that the host reads for each question, with what memories put in."""
        talks = self._composed([[("user", question)] for question in questions], form=form)
        return [
            self.tokens.prompt_ids(talk[0][1], form=form)
            if len(talk) == 1
            else self.tokens.talk_ids(talk)
            for talk in talks
        ]

    def talk(self, messages: Talk) -> list[int]:
        """The token ids of a talk up to where the next answer begins, likewise."""
        return self.tokens.talk_ids(self._composed([messages], form=self.tokens.ask_form)[0])

    def _composed(self, talks: list[Talk], *, form: Form) -> list[Talk]:
        for memory in acting(self.model):
            if isinstance(memory, Textual):
                composed = memory.compose([talk[-1][1] for talk in talks], form=form)
                talks = [talk[:-1] + new for talk, new in zip(talks, composed, strict=True)]
        return talks

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: Sequence[int] | int,
        progress: Progress = lambda done: None,
        streamer: Any = None,
    ) -> list[list[int]]:
        """New token ids after each prompt (token ids), up to and with the one that stops."""
        return generate(
            self.adapter,
            prompts,
            max_new_tokens=max_new_tokens,
            stop=self.tokens.stop,
            progress=progress,
            streamer=streamer,
        )

    def trials(self, pairs: Sequence[tuple[str, str]], *, form: Form) -> list[Trial]:
        """Questions with the answers expected to them, ready to be checked in one pass."""
        prompts = self.prompts([question for question, _ in pairs], form=form)
        return [
            Trial(tuple(ids), tuple(self.tokens.answer_ids(question, answer, form=form)))
            for ids, (question, answer) in zip(prompts, pairs, strict=True)
        ]

    def check(
        self, facts: Sequence[Fact], *, progress: Progress = lambda done: None
    ) -> list[Verdict]:
        """For each fact, whether the host answers its prompt and every paraphrase, and stops."""
        owners = [i for i, fact in enumerate(facts) for _ in fact.questions]
        pairs = [(question, fact.answer) for fact in facts for question in fact.questions]
        trials = self.trials(pairs, form=self.tokens.ask_form)
        verdicts = check(self.adapter, trials, progress=progress)
        worst: dict[int, Verdict] = {}
        for i, verdict in zip(owners, verdicts, strict=True):
            if i not in worst or not verdict.holds:
                worst[i] = verdict
        return [worst[i] for i in range(len(facts))]

    def explain(self, question: str) -> Firing:
        """What the attached memories make of a question: the one that fires, or the nearest."""
        memories = attached(self.model)
        firings = [memory.explain(question) for memory in memories if isinstance(memory, Writable)]
        if not firings:
            return Firing(False, None, None, 0.0, SHARED if memories else "no memory is attached")
        return max(firings, key=lambda firing: (firing.fired, firing.score))

    def bare(self) -> Any:
        """A context in which the host runs as if no memory were attached."""
        return silenced(self.model)


class OpenMemory:
    """A memory directory, opened and attached to its host; close it when you are done."""

    def __init__(
        self, host: Host, memory: Any, directory: Directory, others: Sequence[Any] = ()
    ) -> None:
        self.host, self.memory, self.directory = host, memory, directory
        self.others = tuple(others)
        "Memories that were trained together with this one; they act while it is open."
        stored = directory.facts()
        if isinstance(memory, Trainable):
            _load_tensors(memory, directory)
        else:
            memory.add((one.id, one.fact, one.delta) for one in stored)
        self.book = Book(one.fact for one in stored)
        for each in (memory, *self.others):
            attach(host.model, each)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.book.facts)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts that the memory knows, oldest first."""
        return tuple(self.book.facts.values())

    def close(self) -> None:
        """Detach from the host and let the next writer in."""
        for each in (self.memory, *self.others):
            detach(self.host.model, each)
        self.directory.close()

    def teach(
        self,
        facts: Iterable[Fact],
        *,
        on_conflict: OnConflict = "replace",
        check: bool = True,
        dry_run: bool = False,
        who: str | None = None,
        why: str | None = None,
        source: str | None = None,
        progress: Progress = lambda done: None,
    ) -> Receipt:
        """Teach facts, check each by what the host then says, and store those that hold.

        Facts are written in chunks, each one transaction; what a receipt or an interruption
        leaves behind is always whole. Nothing is written twice: a fact that is stored already
        is `known`. A trained memory is trained on all its facts and the new ones, as one write.
        """
        if isinstance(facts, Fact):
            facts = [facts]
        if on_conflict not in ("replace", "keep", "reject"):
            raise BadInput(f"on_conflict is {on_conflict!r}; use 'replace', 'keep' or 'reject'")
        lesson = self._lesson(
            Account(
                book=Book(self.facts) if dry_run else self.book,
                tokens=self.host.tokens,
                check=self.check if check else None,
            ),
            note={"who": who or user(), "why": why, "source": source},
            on_conflict=on_conflict,
            dry_run=dry_run,
            progress=progress,
        )
        try:
            # A check's own work dwarfs collection, and its cycles should not pile up.
            with nullcontext() if check else _without_collection():
                for fact in facts:
                    lesson.take(fact)
                lesson.flush()
        except KeyboardInterrupt as stop:
            raise Interrupted(lesson.receipt()) from stop
        return lesson.receipt()

    def _lesson(self, account: Account, **how: Any) -> Lesson | Course:
        if self.others:
            raise BadInput(
                f"{self.directory.path} was trained together with another memory, and cannot be "
                "taught without it; 'engram train --lora' trains both on all facts"
            )
        adapter = self.host.adapter
        how |= {"account": account, "directory": self.directory, "longest": adapter.max_length()}
        if isinstance(self.memory, Trainable):
            return Course(self.memory, adapter, **how)
        return Lesson(self.memory, **how)

    def forget(
        self,
        ids: str | Iterable[str],
        *,
        dry_run: bool = False,
        who: str | None = None,
        why: str | None = None,
    ) -> tuple[Fact, ...]:
        """Forget facts by id; afterwards the host computes as if they had never been taught.

        `CannotForget` for a trained memory, whose facts share their tensors.
        """
        self.directory.check_removable()
        wanted = [ids] if isinstance(ids, str) else list(ids)
        gone = {one.id: one.fact for one in (self.directory.get(id) for id in wanted)}
        if gone and not dry_run:
            self.directory.commit("forget", remove=list(gone), who=who or user(), why=why)
            self._change(remove=gone, add=())
        return tuple(gone.values())

    def undo(self, write: int | None = None, *, who: str | None = None) -> Receipt:
        """Take back the last write that is in effect, or a given one, exactly.

        `CannotForget` for a trained memory, whose facts share their tensors.
        """
        self.directory.check_removable()
        inverse = self.directory.inverse(write)
        number = self.directory.commit(
            "undo",
            add=inverse.add,
            remove=inverse.remove,
            undoes=inverse.undoes,
            who=who or user(),
        )
        self._change(remove=inverse.remove, add=inverse.add)
        return Receipt(
            taught=tuple(fact.id for fact, _ in inverse.add),
            forgotten=tuple(inverse.remove),
            checked=False,
            write=number,
        )

    def verify(self, *, progress: Progress = lambda done: None) -> dict[str, Verdict]:
        """Ask the host for every stored fact again; a verdict for each, by id."""
        facts = list(self.facts)
        return dict(zip((f.id for f in facts), self.check(facts, progress=progress), strict=True))

    def check(
        self, facts: Sequence[Fact], *, progress: Progress = lambda done: None
    ) -> list[Verdict]:
        """For each fact, whether the host answers its prompt and every paraphrase, and stops."""
        return self.host.check(facts, progress=progress)

    def explain(self, question: str) -> Firing:
        """Which fact fires on a question, by which address, and what came second."""
        if not isinstance(self.memory, Writable):
            return Firing(False, None, None, 0.0, SHARED)
        return self.memory.explain(question)

    def get(self, id: str) -> Stored:
        """A stored fact by its id, or by as much of it as is unique."""
        return self.directory.get(id)

    def writes(self) -> list[Write]:
        """The history of the memory, oldest first."""
        return self.directory.writes()

    def stats(self) -> Stats:
        """Counts and sizes."""
        return self.directory.stats()

    def _change(self, *, remove: Iterable[str], add: Iterable[tuple[Fact, Any]]) -> None:
        remove, add = list(remove), list(add)
        self.memory.remove(remove)
        self.memory.add((fact.id, fact, delta) for fact, delta in add)
        for id in remove:
            self.book.remove(id)
        for fact, _ in add:
            self.book.add(fact)


def _load_tensors(memory: Trainable, directory: Directory) -> None:
    tensors = directory.tensors()
    if tensors is None:
        return
    try:
        memory.load_state_dict(tensors)
    except RuntimeError as error:
        raise StoreDamaged(
            f"the tensors in {directory.path} are not those of a {directory.kind} memory with its "
            "options, for its host; teach its facts to a new one"
        ) from error


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep the garbage collector from going over ever more objects that are there to stay."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _check_options(directory: Directory, options: Mapping[str, Any], *, kind: str | None) -> None:
    if kind not in (None, directory.kind):
        raise BadInput(
            f"{directory.path} is a {directory.kind} memory, not {kind}; the kind of a memory is "
            "fixed when it is created"
        )
    stored = config_of(directory.kind, directory.config)
    asked = config_of(directory.kind, {**directory.config, **options})
    for name in options:
        value, kept = getattr(asked, name), getattr(stored, name)
        if value != kept:
            raise BadInput(
                f"{directory.path} was created with {name}={kept!r}, not {value!r}; "
                "options of a memory are fixed when it is created"
            )
