"""Against EasyEdit's ROME, MEMIT and AlphaEdit: single edits of one host, scored by one scorer.

Each fact of ZsRE is written into the bare host by `rank_one` and, in turn, by EasyEdit; both see
the plain prompt, the answer and the subject, one thread each. What comes of either is a host with
other weights. It is asked here, by the same code, whoever wrote it: the taught wording, a wording
that was not, prompts that have nothing to do with it. Then the host has its own weights again.

EasyEdit is no package that can be installed. It is cloned, and run by an environment of its own:

    git clone https://github.com/zjunlp/EasyEdit FOLDER
    python3 -m venv PLACE && PLACE/bin/pip install torch transformers datasets matplotlib pyyaml
    python -m benchmarks.easyedit --python PLACE/bin/python --source FOLDER

Its hyper-parameters are those of its own files for other hosts, with blocks at the same share of
the depth; the best of some settings is taken, by facts that are not scored. Ours has its defaults.
What is stored already is not run again, so that it can be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.other_side import Ask, Row, other_side
from engram_transformers.api import Host, load
from engram_transformers.evaluation.answers import Answered
from engram_transformers.evaluation.metrics import mean
from engram_transformers.evaluation.silence import Bare, bare
from engram_transformers.evaluation.task import Question
from engram_transformers.evaluation.tasks.zsre import zsre
from engram_transformers.experiments.provenance import provenance
from engram_transformers.experiments.scores import ask, asked_as, compare
from engram_transformers.memories.rank_one import RankOne, RankOneConfig
from engram_transformers.memories.rank_one.edit import Edit
from engram_transformers.models.embedded import EMBEDDED, converted, embedded_gguf
from engram_transformers.types import Fact

RESULT = Path(__file__).parent / "results" / "easyedit.json"
OURS, THEIRS, BARE = "rank_one", "EasyEdit", "bare host"
METHODS = {"ROME": "rome", "MEMIT": "memit", "AlphaEdit": "alphaedit"}
"What ours calls the methods of theirs."
SETTINGS: Mapping[str, Sequence[Row]] = {
    "ROME": (
        {"of": "llama-7b", "changes": {}},
        {"of": "llama-7b", "changes": {"mom2_adjustment": True}},
        {"of": "gpt2-xl", "changes": {}},
    ),
    "MEMIT": (
        {"of": "llama-7b", "changes": {}},
        {"of": "llama-7b", "changes": {"mom2_update_weight": 100}},
        {"of": "gpt2-xl", "changes": {"mom2_update_weight": 100, "clamp_norm_factor": 4}},
    ),
    "AlphaEdit": (
        {"of": "llama3-8b", "changes": {}},
        {
            "of": "llama3-8b",
            "changes": {"clamp_norm_factor": 4, "v_lr": 0.5, "v_weight_decay": 1e-3},
        },
        {"of": "gpt2-xl", "changes": {"clamp_norm_factor": 4, "L2": 1}},
    ),
}
"Of theirs, that are tried: which of its files, and what is changed in it."
TRIED_ON = 2
"Facts by which a setting is chosen: the last ones of the set."
FIRST = 200
"Of the set's facts, the first that is scored: defaults of ours were chosen on some before it."
UNRELATED = 4
"Prompts beside each fact."
PIECE, PIECES = 400, 170
"Letters, and so many pieces of Python's manual for its statistics: some 16,000 tokens."

Written = Callable[[Fact], AbstractContextManager[Row]]
"Has the host know a fact for as long as it lasts; what that took."


@dataclass(frozen=True)
class Options:
    """How many facts each method edits."""

    rome: int = 50
    memit: int = 10
    alphaedit: int = 10
    threads: int = 1


@dataclass(frozen=True)
class Case:
    """A fact, and what is asked once it is written."""

    fact: Fact
    reworded: str
    unrelated: tuple[str, ...]


def main() -> None:
    options, python, source, out, work = _arguments()
    torch.set_num_threads(options.threads)
    host = load(EMBEDDED, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = work or Path(folder)
        arguments = prepared(place, source, threads=options.threads)
        asking = other_side(python, "benchmarks.easyedit_side", arguments=arguments)
        theirs = stack.enter_context(asking)
        run = Run(host, theirs, place, out)
        for method in METHODS:
            scored, tried = cases(getattr(options, METHODS[method]))
            if scored:
                run.method(method, scored, tried)


def _arguments() -> tuple[Options, Path, Path, Path, Path | None]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="of EasyEdit's environment")
    parser.add_argument("--source", type=Path, required=True, help="of EasyEdit's files")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--work", type=Path, help="where its statistics are kept from run to run")
    for name, default in vars(Options()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = vars(parser.parse_args())
    paths = [given.pop(name) for name in ("python", "source", "out", "work")]
    return Options(**given), *paths


def prepared(place: Path, source: Path, *, threads: int) -> list[str]:
    """What the other side is told at its start; the host under a name that EasyEdit knows."""
    place.mkdir(parents=True, exist_ok=True)
    host, texts = place.absolute() / "llama-host", place.absolute() / "texts.json"
    if not host.is_symlink():
        host.symlink_to(converted(embedded_gguf()).absolute())
    texts.write_text(json.dumps(manual()))
    given = {"source": source.absolute(), "host": host, "texts": texts, "threads": threads}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def manual() -> list[str]:
    """Pieces of the text whose keys ours leaves alone, spread over it."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]
    return pieces[:: max(1, len(pieces) // PIECES)][:PIECES]


def cases(count: int) -> tuple[list[Case], list[Case]]:
    """Facts that either side can take, from `FIRST` on, and the set's last, by which is chosen."""
    task = zsre()
    reworded = {question.fact: question.text for question in task.asked["paraphrase"]}
    facts = [fact for fact in task.facts if fact.id in reworded and _editable(fact)]
    unrelated = task.silent["unrelated"]

    def case(at: int) -> Case:
        begins = at * UNRELATED % (len(unrelated) - UNRELATED)
        return Case(facts[at], reworded[facts[at].id], unrelated[begins : begins + UNRELATED])

    tried = range(len(facts) - TRIED_ON, len(facts))
    scored = range(FIRST, tried.start)[:count]
    return [case(at) for at in scored], [case(at) for at in tried]


def _editable(fact: Fact) -> bool:
    """EasyEdit puts braces where the subject stands, once."""
    subject = fact.subject or ""
    braces = any(brace in fact.prompt for brace in "{}")
    return bool(subject) and fact.prompt.count(subject) == 1 and not braces


# -- what is run ------------------------------------------------------------------------------


class Run:
    """A comparison that goes on where it stopped."""

    def __init__(self, host: Host, theirs: Ask, place: Path, out: Path) -> None:
        self.host, self.theirs, self.place, self.out = host, theirs, place, out
        empty: Row = {"origins": {}, "tried": [], "edits": []}
        self.result: Row = json.loads(out.read_text()) if out.exists() else empty
        came = provenance(host)
        self.commit = str(came["commit"])
        self.result["origins"][self.commit] = came

    def method(self, method: str, scored: Sequence[Case], tried: Sequence[Case]) -> None:
        """Choose a setting of theirs, then edit facts on both sides in turn."""
        for setting in SETTINGS[method]:
            for case in tried:
                self._once("tried", method, THEIRS, case, self._theirs(method, setting), setting)
        setting = chosen(self.result["tried"], method)
        ours = Ours(self.host, METHODS[method])
        for case in scored:
            self._once("edits", None, BARE, case, untouched)
            self._once("edits", method, OURS, case, ours, ours.setting)
            self._once("edits", method, THEIRS, case, self._theirs(method, setting), setting)

    def _theirs(self, method: str, setting: Row) -> Written:
        def written(fact: Fact) -> AbstractContextManager[Row]:
            to = self.place.absolute() / "edited.safetensors"
            task = {"method": method, "setting": setting, "fact": fact.as_dict(), "to": str(to)}
            return by_theirs(self.host, self.theirs(task), to)

        return written

    def _once(
        self,
        group: str,
        method: str | None,
        side: str,
        case: Case,
        written: Written,
        setting: Row | None = None,
    ) -> None:
        """Edit, ask, put back and store; nothing where that is stored already."""
        row = {"method": method, "side": side, "fact": case.fact.prompt, "setting": setting}
        if any(row.items() <= stored.items() for stored in self.result[group]):
            return
        row |= edited(self.host, case, written)
        self.result[group].append({**row, "commit": self.commit})
        self.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.result, ensure_ascii=False, indent=1)
        self.out.write_text(text + "\n", encoding="utf-8")
        print(json.dumps(row, ensure_ascii=False), flush=True)


def chosen(tried: Sequence[Row], method: str) -> Row:
    """The setting with the most right tokens in both wordings and the most answers left alone."""

    def worth(setting: Row) -> float:
        rows = [row for row in tried if (row["method"], row["setting"]) == (method, setting)]
        return mean(_worth(row) for row in rows).value if rows else 0.0

    return max(SETTINGS[method], key=worth)


def _worth(row: Row) -> float:
    kept = sum(row["kept"]) / len(row["kept"])
    return float(row["taught"]["forced"] + row["reworded"]["forced"] + kept)


# -- one edit ---------------------------------------------------------------------------------


def edited(host: Host, case: Case, written: Written) -> Row:
    """Write a case's fact, ask, put back: what that took, what was said, whether all is back."""
    prompts = host.prompts(case.unrelated, form="plain")
    before = bare(host.adapter, prompts, stop=host.tokens.stop)
    with written(case.fact) as spent:
        found = scored(host, case, before)
    back, _ = compare(host, case.unrelated, before, form="plain")
    return {**spent, **found, "undone": all(back)}


def scored(host: Host, case: Case, before: Bare) -> Row:
    """What the host says now, whoever changed it."""
    wordings = (case.fact.prompt, case.reworded)
    questions = [Question.about(case.fact, text) for text in wordings]
    taught, reworded = ask(host, "asked", questions, form="plain")
    same_bits, kept = compare(host, case.unrelated, before, form="plain")
    return {
        "taught": _said(taught),
        "reworded": _said(reworded),
        "kept": kept,
        "bit_equal": same_bits,
    }


def _said(one: Answered) -> Row:
    # Where every token is the first choice behind those before it, it is written first.
    told = {"forced": one.forced, "first": one.forced == 1.0, "exact": one.exact}
    return {**told, "ended": one.ended, "said": one.said}


@contextmanager
def untouched(fact: Fact) -> Iterator[Row]:
    """The bare host."""
    yield {}


class Ours:
    """`rank_one` as it comes, its edits written into the weights; one fact at a time."""

    def __init__(self, host: Host, method: Any) -> None:
        self.host = host
        self.memory = RankOne.open(host.adapter, host.tokens, RankOneConfig(method=method))
        # As it is read back: with other defaults everything is run again.
        self.setting: Row = json.loads(json.dumps(asdict(self.memory.config)))

    @contextmanager
    def __call__(self, fact: Fact) -> Iterator[Row]:
        """While this lasts the host knows the fact."""
        memory = self.memory
        memory.prepare()
        clocks = Clocks()
        with asked_as(self.host, "plain"):
            (delta,) = memory.write([fact])
        memory.add([(fact.id, fact, delta)])
        with Edit(memory.factors()).written(self.host.adapter):
            yield clocks.spent()
        memory.remove([fact.id])


@contextmanager
def by_theirs(host: Host, answer: Row, weights: Path) -> Iterator[Row]:
    """While this lasts the host has the weights that EasyEdit left in a file."""
    with replaced(host.model, load_file(weights)):
        yield answer


@contextmanager
def replaced(model: Any, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While this lasts a model has other weights; then its own tensors again."""
    parameters = {name: model.get_parameter(name) for name in weights}
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = weights[name].to(own[name])
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


class Clocks:
    """Seconds since then."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def spent(self) -> Row:
        """As the other side tells them."""
        now = {"wall": time.perf_counter(), "processor": time.process_time()}
        return {"wall": now["wall"] - self.wall, "processor": now["processor"] - self.processor}


if __name__ == "__main__":
    main()
