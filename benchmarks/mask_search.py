"""How long one search among edit masks takes, with both back ends, and how much they weigh.

    python -m benchmarks.mask_search [--masks 10000]

Made-up masks of two sizes, that of SmolLM2-135M and that of the seed; then the retrieval of the
kind `memoir` among as many questions, with made-up activations, by the mask alone, with the words'
say and with the sentence encoder's. Processor time of one thread; what is found is written to
results/mask_search.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from engram_transformers.experiments.provenance import origin
from engram_transformers.memories.memoir import (
    EditMaskDatabase,
    ResidualMemoryLayer,
    TopHashFingerprinter,
)
from engram_transformers.memories.memoir.bits import pack
from engram_transformers.memories.memoir.retrieval import Retrieval, Retriever
from engram_transformers.models.encoder import SentenceEncoder
from engram_transformers.routing.meaning import MeaningAddress
from engram_transformers.types import Fact

OUT = Path(__file__).parent / "results" / "mask_search.json"
ROUNDS = 300
SHAPES = {"SmolLM2-135M": (1536, 439, 576), "seed": (4096, 100, 4096)}
"Features, active ones, and outputs."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=10_000)
    masks = parser.parse_args().masks
    torch.set_num_threads(1)
    found = {
        "masks": masks,
        "rounds": ROUNDS,
        "shapes": {name: search_times(masks, *shape) for name, shape in SHAPES.items()},
        "retrieval": retrieval_times(masks),
        "provenance": origin(),
    }
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def search_times(masks: int, features: int, active: int, outputs: int) -> dict[str, Any]:
    """Milliseconds for one fingerprint, one search by each back end, one token; and bytes."""
    fingerprinter, stored, queries = _made_up(masks, features, active)
    plain, faiss = (_filled(stored, name) for name in ("plain", "faiss"))
    asked = [fingerprinter.generate_mask(query) for query in queries]
    layer = ResidualMemoryLayer(outputs, sparsity_ratio=active / features, features=features)
    layer.add_edit("one", asked[0])
    layer.write("one", torch.randn(outputs, active))
    return {
        "features": features,
        "active": active,
        "milliseconds": {
            "fingerprint": _times(fingerprinter.generate_mask, queries),
            "plain": _times(lambda mask: plain.find_closest(mask, threshold=0.4), asked),
            "faiss": _times(lambda mask: faiss.find_closest(mask, threshold=0.4), asked),
            "layer": _times(lambda x: layer(x[None], edit_id="one"), list(queries[:20])),
        },
        "bytes_per_mask": plain.get_statistics()["bytes_per_mask"],
        "bytes": {"matrix": 4 * features * outputs, "edit": 4 * active * outputs},
    }


def retrieval_times(masks: int) -> dict[str, Any]:
    """Milliseconds from the mean activation of a question to what it asks, by each way to match."""
    fingerprinter, stored, queries = _made_up(masks, *SHAPES["SmolLM2-135M"][:2])
    encoder = SentenceEncoder()
    noise = torch.Generator().manual_seed(1)
    vectors = torch.randn(masks, encoder.dimension, generator=noise)
    vectors = torch.nn.functional.normalize(vectors, dim=1).numpy()
    questions = [f"Which code opens door {i} of the depot in Larkspur?" for i in range(masks)]
    found = {}
    for match in ("mask", "words", "meaning"):
        meaning = MeaningAddress(encoder) if match == "meaning" else None
        how = Retrieval(threshold=0.0, chance=0.5, judged=match != "mask")
        made = Retriever(fingerprinter, encoder.vocabulary, how, meaning=meaning)
        for number, (question, mask) in enumerate(zip(questions, stored, strict=True)):
            fact = Fact(question, str(number))
            made.add(number, fact, pack(mask[None].bool()), vectors[number : number + 1])
        found[match] = _times(lambda mean, made=made: made.decide(mean, questions[7]), queries)
    found["encoding"] = _times(lambda _: encoder.encode([questions[7]]), queries)
    return found


def _made_up(masks: int, features: int, active: int) -> tuple[TopHashFingerprinter, Tensor, Tensor]:
    noise = torch.Generator().manual_seed(0)
    fingerprinter = TopHashFingerprinter(features, active)
    stored = fingerprinter.generate_mask(torch.randn(masks, features, generator=noise))
    return fingerprinter, stored, torch.randn(ROUNDS, features, generator=noise)


def _filled(masks: Tensor, backend: Literal["plain", "faiss"]) -> EditMaskDatabase:
    db = EditMaskDatabase(masks.shape[1], "overlap", backend=backend)
    for number, mask in enumerate(masks):
        db.add(str(number), mask)
    return db


def _times(what: Callable[[Any], Any], given: Sequence[Any] | Tensor) -> dict[str, float]:
    """Median, with the quartiles beside it."""
    times = []
    for one in given:
        started = time.process_time()
        what(one)
        times.append(1000 * (time.process_time() - started))
    low, middle, high = statistics.quantiles(times, n=4)
    return {"value": middle, "low": low, "high": high}


if __name__ == "__main__":
    main()
