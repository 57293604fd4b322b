"""Against engram-peft: the same host, facts, tables, steps and rates, each with its own trainer.

Facts of the demonstration are taught by their prompts and asked in wordings that were not. Whether
every way to read a text then gives the same logits is asked of the trained layers, and of the bare
host as a control. engram-peft runs in an environment of its own, which is not made here:

    python3 -m venv PLACE && PLACE/bin/pip install engram-peft
    python -m benchmarks.engram_peft --python PLACE/bin/python
    python -m benchmarks.engram_peft --python PLACE/bin/python --host smollm2-135m \\
        --facts 48 --steps 60 --seeds 1 --rates 1e-3 3e-3

A result is stored under the name of its host, beside those of others. Runs that are stored already,
of other rates and seeds of the same comparison, are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import TrainingArguments

from benchmarks.decoding import Text, laws, losses
from benchmarks.other_side import Ask, Row, other_side
from engram_transformers.attaching import attached
from engram_transformers.demo.data import DemoFact, demo_data
from engram_transformers.experiments.provenance import origin
from engram_transformers.extend import add_engram
from engram_transformers.models.embedded import EMBEDDED, converted, embedded_gguf
from engram_transformers.models.fresh import fast_tokenizer, fresh_decoder
from engram_transformers.models.load import LoadedHost, load_host
from engram_transformers.training.examples import IGNORED, trials_of
from engram_transformers.training.trainer import EngramTrainer
from engram_transformers.types import Fact

RESULT = Path(__file__).parent / "results" / "engram_peft.json"
TINY = "tiny"
SIDES: dict[str, int | None] = {"ours": None, "theirs": None, "theirs, one branch": 1}
"Branches of each side; None: as it comes."
ASKED = 6
"Texts of which all ways to read them are compared."
LOUDER = 5.0
"Weights as transformers draws them let blocks and head say next to nothing."


@dataclass(frozen=True)
class Options:
    """What is compared."""

    host: str = TINY
    facts: int = 64
    steps: int = 160
    batch: int = 8
    rates: tuple[float, ...] = (4e-4, 1e-3, 3e-3)
    seeds: int = 3
    rows: int = 1000
    "Of each table; either side takes the next primes from here on."
    width: int = 16
    heads: int = 8
    orders: tuple[int, ...] = (2, 3)
    layers: tuple[int, ...] = (1, 2)
    threads: int = 1


def main() -> None:
    options, python, out = _arguments()
    came, runs = origin(), kept(options, out)
    done = {(run["side"], run["rate"], run["seed"]) for run in runs}
    with (
        tempfile.TemporaryDirectory() as folder,
        other_side(python, "benchmarks.engram_peft_side") as theirs,
    ):
        host = host_folder(options, Path(folder))
        for run in compared(options, host, theirs, done=done):
            print(json.dumps(run), flush=True)
            runs.append({**run, "provenance": came})
            _store(out, options.host, {"options": _fixed(options), "runs": runs})


def kept(options: Options, out: Path) -> list[Row]:
    """Runs that are stored already, where no more than rates and seeds differ."""
    stored = json.loads(out.read_text()) if out.exists() else {}
    found = stored.get(options.host, {"options": None})
    return list(found["runs"]) if found["options"] == _fixed(options) else []


def _fixed(options: Options) -> Row:
    varied = ("rates", "seeds")
    fixed = {name: value for name, value in vars(options).items() if name not in varied}
    return dict(json.loads(json.dumps(fixed)))  # as it is read back


def _store(out: Path, host: str, result: Row) -> None:
    # After every run: a comparison that is stopped has what it measured, and goes on from there.
    stored = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps({**stored, host: result}, indent=1) + "\n")


def _arguments() -> tuple[Options, Path, Path]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="of engram-peft's environment")
    parser.add_argument("--out", type=Path, default=RESULT)
    for name, default in vars(Options()).items():
        several = isinstance(default, tuple)
        kind = type(default[0] if several else default)
        parser.add_argument(f"--{name}", type=kind, nargs="+" if several else None, default=default)
    given = vars(parser.parse_args())
    python, out = given.pop("python"), given.pop("out")
    many = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return Options(**many), python, out


# -- one host, and what it is taught ----------------------------------------------------------


def host_folder(options: Options, folder: Path) -> Path:
    """Where both sides load the host from."""
    if options.host != TINY:
        return converted(embedded_gguf()) if options.host == EMBEDDED else Path(options.host)
    tokenizer = _tokenizer([text for fact in demo_data().facts for text in _texts(fact)])
    model = fresh_decoder(
        vocab=len(tokenizer), hidden=64, blocks=4, heads=4, inner=128, context=256, seed=0,
        pad=tokenizer.pad_token_id, end=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(LOUDER)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _texts(fact: DemoFact) -> tuple[str, ...]:
    return (fact.fact.prompt, fact.fact.answer, *fact.held_out)


def _tokenizer(texts: Sequence[str]) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return fast_tokenizer(tokenizer, pad="<|pad|>", end="<|end|>")


def task_of(options: Options, folder: Path) -> Row:
    """What both sides are given, but for rate, seed and branches."""
    host = load_host(str(folder), dtype=torch.float32)
    facts = demo_data(options.facts).facts
    taught = _ids(host, [each.fact for each in facts])
    held_out = _ids(host, [Fact(q, each.fact.answer) for each in facts for q in each.held_out])
    memory = {name: getattr(options, name) for name in ("rows", "width", "heads")}
    listed = {name: list(getattr(options, name)) for name in ("orders", "layers")}
    return {
        "host": str(folder),
        "pad": host.tokenizer.pad_token_id,
        "taught": taught,
        "held_out": held_out,
        "asked": taught[:: -(-2 * len(taught) // ASKED)]
        + held_out[:: -(-2 * len(held_out) // ASKED)],
        "memory": {**memory, **listed},
        "threads": options.threads,
    }


def _ids(host: LoadedHost, facts: Sequence[Fact]) -> list[tuple[list[int], int]]:
    trials = trials_of(facts, host.tokens)
    return [([*trial.prompt, *trial.answer], len(trial.prompt)) for trial in trials]


def training(options: Options, *, rate: float, seed: int) -> Row:
    """The arguments of either trainer."""
    return {
        "max_steps": options.steps,
        "per_device_train_batch_size": options.batch,
        "learning_rate": rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(0.1 * options.steps),
        "seed": seed,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
        "remove_unused_columns": False,
    }


# -- the sides --------------------------------------------------------------------------------


def compared(
    options: Options, folder: Path, theirs: Ask, *, done: Container[tuple[str, float, int]] = ()
) -> Iterator[Row]:
    """Every rate and seed that is not done on every side, in turns."""
    common = task_of(options, folder)
    for rate in options.rates:
        for seed in range(options.seeds):
            for side, branches in SIDES.items():
                if (side, rate, seed) in done:
                    continue
                first = rate == options.rates[0] and seed == 0 and side != "theirs, one branch"
                how = {"arguments": training(options, rate=rate, seed=seed), "seed": seed}
                task = {**common, **how, "branches": branches, "bare": first}
                found = ours(task) if side == "ours" else theirs(task)
                yield {"side": side, "rate": rate, "seed": seed, **found}


def ours(task: Row) -> Row:
    """Train ours on one task, as `engram_peft_side.measured` does theirs."""
    torch.set_num_threads(task["threads"])
    host = load_host(task["host"], dtype=torch.float32)
    texts = {
        n: [Text(tuple(ids), p) for ids, p in task[n]] for n in ("taught", "held_out", "asked")
    }
    before = {name: losses(host.model, texts[name]) for name in ("taught", "held_out")}
    bare = laws(host.model, texts["asked"], pad=task["pad"]) if task["bare"] else None
    model = _with_memory(host, task)
    with tempfile.TemporaryDirectory() as folder:
        trainer = EngramTrainer(
            model=model,
            args=TrainingArguments(output_dir=folder, **task["arguments"]),
            train_dataset=[_item(text) for text in texts["taught"]],
            tokenizer=host.tokenizer,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    [memory] = attached(model)
    return {
        "untrained": before,
        "taught": losses(model, texts["taught"]),
        "held_out": losses(model, texts["held_out"]),
        "laws": laws(model, texts["asked"], pad=task["pad"]),
        "bare": bare,
        "trained": sum(parameter.numel() for parameter in memory.parameters()),
        "conv": max(float(part.conv.detach().abs().max()) for part in memory.layers.values()),
        "steps": trainer.state.global_step,
        "seconds_a_step": seconds / trainer.state.global_step,
    }


def _with_memory(host: LoadedHost, task: Row) -> Any:
    memory = task["memory"]
    return add_engram(
        host.model,
        memory["rows"] * memory["heads"] * len(memory["orders"]),
        memory["layers"],
        tokenizer=host.tokenizer,
        heads=memory["heads"],
        orders=memory["orders"],
        width=memory["width"],
        conv=True,
        seed=task["seed"],
    )


def _item(text: Text) -> Row:
    labels = [IGNORED] * text.prompt + list(text.ids[text.prompt :])
    return {"input_ids": list(text.ids), "labels": labels}


if __name__ == "__main__":
    main()
