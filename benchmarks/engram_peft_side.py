"""The other side of `benchmarks/engram_peft.py`: runs where engram-peft is installed.

Reads a task a line from stdin and answers each with a line of JSON on stdout. Uses what engram-peft
exports and shows in its README: `EngramConfig`, `get_engram_model`, `EngramTrainer`.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
import typing
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments

from benchmarks.decoding import Text, laws, losses

PATCHED = not hasattr(typing, "override")
"engram-peft 1.2.7 asks for Python 3.10 and imports what `typing` has from 3.12 on."


def main() -> None:
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            print(json.dumps(measured(json.loads(line))), file=answers, flush=True)


def measured(task: dict[str, Any]) -> dict[str, Any]:
    """Train on one task; what came of it, and, where it is asked for, of the bare host."""
    torch.set_num_threads(task["threads"])
    host = AutoModelForCausalLM.from_pretrained(task["host"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(task["host"])
    taught, held_out, asked = (
        [Text(tuple(ids), prompt) for ids, prompt in task[name]]
        for name in ("taught", "held_out", "asked")
    )
    bare = laws(host, asked, pad=task["pad"]) if task["bare"] else None
    torch.manual_seed(task["seed"])
    model = attached(host, tokenizer, task)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(model, taught, folder, task)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    model.eval()
    return {
        "taught": losses(model, taught),
        "held_out": losses(model, held_out),
        "laws": laws(model, asked, pad=task["pad"]),
        "bare": bare,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "conv": max(float(_taps(layer).abs().max()) for layer in model.engram_layers.values()),
        "steps": trainer.state.global_step,
        "seconds_a_step": seconds / trainer.state.global_step,
        "origin": origin(),
    }


def attached(host: Any, tokenizer: Any, task: dict[str, Any]) -> Any:
    """The host with Engram layers, with as many rows in each table as ours."""
    _patch()
    from engram_peft import EngramConfig, get_engram_model

    memory, branches = task["memory"], task["branches"]
    heads, orders = memory["heads"], memory["orders"]
    config = EngramConfig(
        target_layers=memory["layers"],
        ngram_sizes=orders,
        n_head_per_ngram=heads,
        # It divides this by the heads.
        engram_vocab_size_per_ngram=[memory["rows"] * heads] * len(orders),
        embedding_dim=memory["width"] * heads * len(orders),
        **({} if branches is None else {"hc_mult": branches}),
    )
    return get_engram_model(host, config, tokenizer, train_mode="engram_only")


def trainer_of(model: Any, texts: list[Text], folder: str, task: dict[str, Any]) -> Any:
    """Its own trainer, with batches whose labels are the answers: its collator learns prompts."""
    from engram_peft import EngramTrainer

    def batch(texts: list[Text]) -> dict[str, Any]:
        return padded(texts, pad=task["pad"])

    arguments = TrainingArguments(output_dir=folder, **task["arguments"])
    return EngramTrainer(model=model, args=arguments, train_dataset=texts, data_collator=batch)


def padded(texts: list[Text], *, pad: int) -> dict[str, Any]:
    """A batch padded on the right, of which answers are learned."""
    width = max(len(text.ids) for text in texts)
    ids, labels, mask = [], [], []
    for text in texts:
        rest, answer = width - len(text.ids), text.ids[text.prompt :]
        ids.append([*text.ids, *[pad] * rest])
        labels.append([*[-100] * text.prompt, *answer, *[-100] * rest])
        mask.append([1] * len(text.ids) + [0] * rest)
    made = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    return {name: torch.tensor(rows) for name, rows in made.items()}


def origin() -> dict[str, Any]:
    """What ran."""
    packages = ("engram-peft", "torch", "transformers")
    found = {name: version(name) for name in packages}
    return {**found, "python": platform.python_version(), "typing_override_added": PATCHED}


def _taps(layer: Any) -> Any:
    return layer.short_conv.conv.weight.detach()


def _patch() -> None:
    if PATCHED:
        from typing_extensions import override

        typing.override = override  # type: ignore[attr-defined,unused-ignore]


if __name__ == "__main__":
    main()
