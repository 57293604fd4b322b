"""What the main job teaches and asks, from the data folder."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.match_sets import first_per_subject, last_per_subject, rows
from engram_transformers.models.tokens import Form
from engram_transformers.types import Fact

Row = dict[str, Any]


@dataclass
class Job:
    """Facts to teach, questions with the fact that each one means, and prompts for silence."""

    name: str
    form: Form
    "How its prompts are asked: questions through the chat template, beginnings as plain text."
    facts: list[Fact] = field(default_factory=list)
    asked: dict[str, list[tuple[str, Fact]]] = field(default_factory=dict)
    "Groups of questions that were not taught."
    silent: dict[str, list[str]] = field(default_factory=dict)
    "Groups of prompts that no taught fact answers."

    def cut(self, limit: int | None) -> Job:
        """The job with the first `limit` facts, and their share of the questions."""
        if limit is None:
            return self
        facts = self.facts[:limit]
        kept = {fact.id for fact in facts}
        asked = {
            group: [(text, fact) for text, fact in pairs if fact.id in kept]
            for group, pairs in self.asked.items()
        }
        silent = {group: prompts[:limit] for group, prompts in self.silent.items()}
        return Job(self.name, self.form, facts, asked, silent)

    def without_subjects(self) -> Job:
        """The job with facts that do not say what they are about."""
        bare = {fact.id: replace(fact, subject=None) for fact in self.facts}
        asked = {
            group: [(text, bare[fact.id]) for text, fact in pairs]
            for group, pairs in self.asked.items()
        }
        return replace(self, facts=list(bare.values()), asked=asked)


def zsre() -> Job:
    records = last_per_subject(rows("editing/zsre_3k_first2000.jsonl"))
    facts = [Fact(row["src"], row["alt"], subject=row["subject"]) for row in records]
    asked = [(row["rephrase"], fact) for row, fact in zip(records, facts, strict=True)]
    unrelated = list(dict.fromkeys(row["loc"] for row in records))
    return Job("zsre", "chat", facts, {"rephrased": asked}, {"unrelated": unrelated})


def wikibigedit() -> Job:
    records = last_per_subject(rows("editing/wikibigedit_3k_first2000.jsonl"))
    facts = [Fact(row["prompt"], row["target_new"], subject=row["subject"]) for row in records]
    asked = [(row["rephrase_prompt"], fact) for row, fact in zip(records, facts, strict=True)]
    taught = {row["prompt"] for row in records}
    near = dict.fromkeys(row["locality_prompt"] for row in records)
    misses = [text for text in near if text not in taught]
    return Job("wikibigedit", "chat", facts, {"rephrased": asked}, {"near miss": misses})


def counterfact() -> Job:
    records = first_per_subject(rows("editing/counterfact.jsonl"))[:1000]
    subjects = {row["subject"] for row in records}
    facts = [Fact(row["prompt"], row["target_new"], subject=row["subject"]) for row in records]
    job = Job("counterfact", "plain", facts, {"paraphrase": [], "after a sentence": []})
    near: dict[str, None] = {}
    for row, fact in zip(records, facts, strict=True):
        job.asked["paraphrase"] += [(text, fact) for text in row["paraphrases"]]
        if row["rome_paraphrase"]:
            job.asked["after a sentence"].append((row["rome_paraphrase"], fact))
        for neighbour in row["neighborhood"]:
            if not any(subject in neighbour["prompt"] for subject in subjects):
                near[neighbour["prompt"]] = None
    job.silent["neighbour"] = list(near)
    return job


def wikidata() -> Job:
    # One context can come with several continuations: the last one is taught.
    records = {row["context"]: row["continuation"] for row in rows("facts/wikidata_cloze.jsonl")}
    return Job("wikidata", "plain", [Fact(prompt, answer) for prompt, answer in records.items()])


def stack_faq() -> Job:
    facts, asked = [], []
    for row in rows("support/stack_faq.jsonl"):
        fact = Fact(row["question"], _first_answer(row["answers"]))
        facts.append(fact)
        asked += [(text, fact) for text in row["paraphrases"]]
    outside = [row["text"] for row in rows("support/clinc_out_of_scope_val.jsonl")]
    return Job("stack_faq", "chat", facts, {"rephrased": asked}, {"out of scope": outside})


def keys() -> Job:
    taught = {row["key"]: row["value"] for row in rows("poc/5k_train.jsonl")}
    tested = dict.fromkeys(row["key"] for row in rows("poc/5k_test.jsonl"))
    unseen = [key for key in tested if key not in taught]
    facts = [Fact(key, value) for key, value in taught.items()]
    return Job("keys", "chat", facts, {}, {"unseen key": unseen})


SETS: dict[str, Callable[[], Job]] = {
    "zsre": zsre,
    "wikibigedit": wikibigedit,
    "counterfact": counterfact,
    "stack_faq": stack_faq,
    "keys": keys,
    "wikidata": wikidata,
}


def _first_answer(answers: Any) -> str:
    """The first answer of a row; some rows hold their list as its own text, one bare text."""
    if isinstance(answers, str):
        try:
            answers = ast.literal_eval(answers)
        except (SyntaxError, ValueError):
            answers = [answers]
    return str(answers[0]).strip()
