"""Results made up to look like measured ones: `python tests/fake_results.py FOLDER` writes them.

Nothing here was measured. Numbers come from a fixed table and a seeded generator.
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path
from typing import Any

from engram_transformers.evaluation.metrics import wilson
from engram_transformers.evaluation.result import write_result

Result = dict[str, Any]
# memory, variant, control; taught, paraphrase, unrelated bit-equal, near miss same, undo;
# seconds and bytes a fact, ms a token
MEMORIES = [
    ("none", "default", None, 0.02, 0.02, 1.0, 1.0, None, 0, 0, 41.0),
    ("text", "oracle", None, 0.93, 0.92, 0.0, 0.31, 1.0, 0, 90, 47.0),
    ("text", "retrieval", None, 0.86, 0.84, 0.0, 0.42, 1.0, 0.012, 1700, 58.0),
    ("text", "examples", None, 0.13, 0.11, 0.0, 0.35, 1.0, 0, 90, 66.0),
    ("lookup", "default", None, 1.0, 0.98, 0.998, 0.99, 1.0, 0.055, 9200, 41.6),
    ("lora", "default", None, 0.83, 0.44, 0.0, 0.28, None, 1.9, 12000, 45.0),
    ("fine_tune", "default", None, 0.97, 0.52, 0.0, 0.21, None, 2.4, 1_700_000, 41.1),
    ("bottleneck", "default", None, 0.71, 0.38, 0.0, 0.33, None, 2.1, 15000, 44.0),
    ("bias", "default", None, 0.03, 0.03, 0.0, 0.55, None, 1.4, 800, 42.0),
    ("lookup", "shuffled", "shuffled", 0.01, 0.01, 0.998, 0.99, 1.0, 0.055, 9200, 41.6),
    ("lookup", "empty", "empty", 0.02, 0.02, 1.0, 1.0, None, 0, 0, 41.1),
]
TASKS = {
    "zsre": (300, 0),
    "counterfact": (300, -0.06),
    "lookup": (200, 0.02),
    "stack_faq": (125, -0.1),
}
PROBES = {"lambada": 0.42, "blimp": 0.77, "arc_easy": 0.55, "piqa": 0.67}
HARM = {"lora": 0.05, "fine_tune": 0.14, "bottleneck": 0.04, "bias": 0.02, "examples": 0.03}
COUNTS = (1, 10, 100, 1000, 5000, 20000)
REACHED = {"lookup": 20000, "retrieval": 20000, "lora": 1000, "fine_tune": 1000, "bottleneck": 1000}
CAME = {
    "commit": "9aa9c8ec6e33",
    "date": "2026-11-21",
    "machine": "x86_64, 2 cores",
    "threads": 2,
    "host": "smollm2-135m",
    "dtype": "torch.float32",
    "python": "3.11.9",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "command": "engram compare --n 300 --seed 0",
}


def share(value: float, n: int) -> Result:
    """A share as results store it, near a value, of n cases."""
    hits = round(min(max(value, 0), 1) * n)
    return {**wilson(hits, n).as_dict(), "n": n}


def number(value: float, n: int, *, about: float = 0.04) -> Result:
    """A mean as results store it."""
    return {"value": value, "low": value * (1 - about), "high": value * (1 + about), "n": n}


def fake_results() -> list[Result]:
    """A whole comparison: every task and memory that is to be expected."""
    found = [_task(task, row) for task in TASKS for row in MEMORIES]
    found += [_probes(row) for row in MEMORIES if row[2] is None]
    found += [_many(row) for row in MEMORIES if row[0] in ("none", "lookup") or _most(row)]
    found += [
        _needle(row) for row in MEMORIES if row[0] in ("none", "lookup") or row[1] == "oracle"
    ]
    wrong = _needle(MEMORIES[0])
    return [*found, {**wrong, "memory": "wrong", "control": "wrong"}]


def write_fakes(folder: Path, results: list[Result]) -> Path:
    """The results as files; returns the folder."""
    for i, result in enumerate(results):
        write_result(folder / f"{i:03}.result.json", result)
    return folder


def _head(task: str, row: tuple[Any, ...], n: int) -> Result:
    return {
        "task": task,
        "memory": row[0],
        "variant": row[1],
        "options": {"rank": 8, "steps": 30} if row[0] == "lora" else {},
        "n": n,
        "seed": 0,
        "protocol": "sequential",
        "control": row[2],
        "provenance": copy.deepcopy(CAME),
        "seconds": 812.4,
    }


def _task(task: str, row: tuple[Any, ...]) -> Result:
    n, shift = TASKS[task]
    memory, _, control, taught, other, equal, near, undo, seconds, size, decode = row
    learnt = taught > 0.05
    result = _head(task, row, n) | {
        "gen_rel": share(taught + (0 if taught == 1 or not learnt else shift), n),
        "gen_stop": share(0.97, n),
        "tf_rel": share(min(taught + 0.2, 1), n),
        "loc_bitexact": share(equal, n),
        "loc_fire": share(1 - equal, n),
        "loc_same": share(max(equal, 0.4 + near / 2), n),
        "seconds_per_fact": number(seconds, n),
        "bytes_per_fact": {"value": size, "low": size, "high": size, "n": n},
        "ms_per_token": number(decode, 64),
    }
    if task != "lookup":
        result |= {"gen_gen": share(other + shift * learnt, n), "tf_gen": share(other + 0.2, n)}
        result |= {"hard_loc": share(near, n)}
    if undo is not None:
        result["undo_exact"] = share(undo, n)
    elif memory != "none":
        result["absent"] = {"undo_exact": f"{memory} cannot forget single facts"}
    if task == "zsre":
        result["categories"] = {"gen_rel": {"CAPITAL": share(taught, 40)}}
    if learnt and not control:
        lost = {"lookup": 0, "text": 0}.get(memory, 0.09)
        result["retention"] = share(1 - 3 * lost, n)
        result["retention_by_age"] = [
            {"from": start, "to": start + 60, **share(1 - lost * start / 60, 60)}
            for start in range(0, n, 60)
        ]
    return result | {"examples": _examples(task, row)}


def _examples(task: str, row: tuple[Any, ...]) -> Result:
    asked = "Which continent is Mount Andrews on?"
    right = {"group": "taught", "asked": asked, "wanted": "Antarctica", "said": "Antarctica"}
    wrong = {
        "group": "paraphrase",
        "asked": f"On what continent can Mount Andrews be found? ({task})",
        "wanted": "Antarctica",
        "said": "Mount Andrews is located in the state of Alaska, in the United States.",
    }
    return {"right": [right] * (row[3] > 0.05), "wrong": [wrong] * 2}


def _probes(row: tuple[Any, ...]) -> Result:
    harm = HARM.get(row[0], HARM.get(row[1], 0))
    shares = {name: share(value - harm, 500) for name, value in PROBES.items()}
    return _head("probes", row, 300) | shares | {"perplexity": number(18.4 * (1 + 4 * harm), 200)}


def _most(row: tuple[Any, ...]) -> int:
    return 0 if row[2] else REACHED.get(row[0], REACHED.get(row[1], 0))


def _many(row: tuple[Any, ...]) -> Result:
    noise = random.Random(f"{row[0]}/{row[1]}")
    reached = _most(row) or (20000 if row[2] else 0)
    head = _head("wikidata_cloze", row, reached or 20000)
    if row[0] == "none":
        return head | {"gen_rel": share(row[3], 250), "ms_per_token": number(row[10], 64)}
    curve = []
    for count in (each for each in COUNTS if each <= reached):
        fade = 0 if row[0] in ("lookup", "text") else 0.22 * len(str(count))
        asked = min(count, 250)
        curve.append(
            {
                "T": count,
                "gen_rel": share(row[3] - fade * noise.uniform(0.8, 1), asked),
                "gen_gen": share(row[4] - fade, asked),
                "seconds_per_fact": number(row[8] * noise.uniform(0.9, 1.1) + 0.4 / count, asked),
                "bytes_per_fact": number(row[9] + 60000 / count, count, about=0),
                "ms_per_token": number(row[10] * (1 + 0.004 * len(str(count))), 64),
            }
        )
    return head | {"curve": curve, "gen_rel": curve[-1]["gen_rel"]}


def _needle(row: tuple[Any, ...]) -> Result:
    fade = 0.12 if row[0] == "text" else 0
    far = {f"needle_{d}": share(row[3] - fade * i, 100) for i, d in enumerate((0, 256, 1024, 4096))}
    return _head("needle", row, 100) | far


if __name__ == "__main__":
    write_fakes(Path(sys.argv[1]), fake_results())
