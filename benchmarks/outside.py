"""The probes of harm against lm-evaluation-harness, on the bare SmolLM2-135M.

Three columns from the same cases: our scores, the tool's scoring of our wrapped host, and the
tool's scoring of the same weights through its own Hugging Face class. The tool gets the rows of
the data in the form of its own tasks, with the wording that its own task files have.

    pip install 'engram-transformers[outside]'
    python -m benchmarks.outside                 100 cases of each probe
    python -m benchmarks.outside lambada piqa    some of the probes
    python -m benchmarks.outside -n 5            fewer cases, and nothing is stored
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engram_transformers.api import Host, load
from engram_transformers.evaluation.harm import Probed, probe
from engram_transformers.evaluation.outside import outside_model
from engram_transformers.evaluation.probes import PROBES, Case
from engram_transformers.experiments.provenance import provenance

RESULT = Path(__file__).parent / "results" / "outside.json"
CASES = 100
CLOSE = 1e-3
"Log-likelihoods that differ by less are equal: batches of another shape round differently."

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("probes", nargs="*", choices=[*PROBES, []], help="all when none is named")
    parser.add_argument("-n", type=int, default=CASES)
    options = parser.parse_args()
    host = load()
    for name in options.probes or PROBES:
        found = compare(host, name, n=options.n)
        print(json.dumps({name: found}), flush=True)
        if options.n == CASES:
            _store(name, {**found, "tool": _version(), "provenance": provenance(host)})


def _store(name: str, found: Row) -> None:
    """Put one probe's numbers beside those of the others."""
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    probes = {**stored.get("probes", {}), name: found}
    result = {"n": CASES, "seed": 0, "close": CLOSE, "probes": dict(sorted(probes.items()))}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def compare(host: Host, name: str, *, n: int) -> Row:
    """One probe, scored three times."""
    times = {}
    started = time.perf_counter()
    ours = probe(name, host.adapter, host.tokens, n=n)
    times["ours"] = time.perf_counter() - started
    columns: Row = {"ours": ours.measure.as_dict()}
    for label, model in (("wrapped", _wrapped(host)), ("own_class", _own_class(host))):
        started = time.perf_counter()
        seen = by_tool(model, name, PROBES[name](n))
        times[label] = time.perf_counter() - started
        columns[label] = _agreement(ours, seen)
    columns["seconds"] = {label: round(seconds, 1) for label, seconds in times.items()}
    return columns


def by_tool(model: Any, name: str, cases: list[Case]) -> list[Row]:
    """What the tool sees in each case, in order: whether it is right, and its likelihoods."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "cache")
        import lm_eval
        from lm_eval.tasks import TaskManager

        _write_task(Path(folder), name, cases)
        manager = TaskManager(include_path=folder, include_defaults=False)
        task = f"local_{name}"
        found = lm_eval.simple_evaluate(
            model, tasks=[task], task_manager=manager, bootstrap_iters=0
        )
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [
        {"right": bool(one["acc"]), "logprobs": [float(pair[0]) for pair in one["filtered_resps"]]}
        for one in samples
    ]


def _agreement(ours: Probed, seen: list[Row]) -> Row:
    gaps = [
        abs(a - b)
        for case, other in zip(ours.cases, seen, strict=True)
        for a, b in zip(case["logprobs"], other["logprobs"], strict=True)
    ]
    other = [
        case["id"]
        for case, one in zip(ours.cases, seen, strict=True)
        if case["right"] != one["right"]
    ]
    return {
        "value": sum(one["right"] for one in seen) / len(seen),
        "cases_judged_otherwise": other,
        "largest_gap_of_logprobs": max(gaps),
        "equal": not other and max(gaps) < CLOSE,
    }


def _wrapped(host: Host) -> Any:
    return outside_model(host.adapter, host.tokens)


def _own_class(host: Host) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=host.model, tokenizer=host.tokens.tokenizer, batch_size=8)


# By probe: the columns of a case in the tool's own data set, and the tool's own wording of it.
WORDED: dict[str, tuple[Callable[[Case], Row], Row]] = {
    "lambada": (
        lambda case: {"text": case.context + case.choices[0]},
        {
            "output_type": "loglikelihood",
            "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
            "doc_to_target": "{{' '+text.split(' ')[-1]}}",
        },
    ),
    "arc_easy": (
        lambda case: {"question": _goal(case), "texts": _bare(case), "answer": case.right},
        {
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{answer}}",
            "doc_to_choice": "{{texts}}",
        },
    ),
    "piqa": (
        lambda case: {"goal": _goal(case), "texts": _bare(case), "label": case.right},
        {
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{goal}}\nAnswer:",
            "doc_to_target": "label",
            "doc_to_choice": "{{[texts[0], texts[1]]}}",
        },
    ),
    "blimp": (
        lambda case: dict(zip(("sentence_good", "sentence_bad"), _bare(case), strict=True)),
        {
            "output_type": "multiple_choice",
            "doc_to_text": "",
            "doc_to_target": 0,
            "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
        },
    ),
}


def _goal(case: Case) -> str:
    return case.context.removeprefix("Question: ").removesuffix("\nAnswer:")


def _bare(case: Case) -> list[str]:
    return [choice.removeprefix(" ") for choice in case.choices]


def _write_task(folder: Path, name: str, cases: list[Case]) -> None:
    row_of, wording = WORDED[name]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row_of(case)) + "\n" for case in cases))
    task = {
        "task": f"local_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **wording,
    }
    # JSON is YAML.
    (folder / f"{name}.yaml").write_text(json.dumps(task))


def _version() -> str:
    from importlib.metadata import version

    return f"lm_eval {version('lm_eval')}"


if __name__ == "__main__":
    main()
