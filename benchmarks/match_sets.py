"""Question sets for the match rule: what is taught, what is asked, what is meant.

Every set is built from the data folder (ENGRAM_DATA, else ../shared/data next
to the repository).  The scored sets follow published rows; the fitted sets use
other rows, other files, or sentences written here, so that no scored row is
ever fitted on.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

DATA = Path(os.environ.get("ENGRAM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SILENCE = -1

Row = dict[str, Any]


class Taught(NamedTuple):
    """One stored fact."""

    text: str
    subject: str | None
    answer: str


class Asked(NamedTuple):
    """One question put to the memory; `target` indexes the taught facts."""

    text: str
    group: str
    target: int


@dataclass
class QuestionSet:
    """Facts taught together, and everything asked of them."""

    name: str
    taught: list[Taught] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def teach(self, text: str, subject: str | None, answer: str) -> int:
        self.taught.append(Taught(text, subject, answer))
        return len(self.taught) - 1

    def ask(self, text: str, group: str, target: int = SILENCE) -> None:
        self.asked.append(Asked(text, group, target))


def rows(name: str) -> list[Row]:
    """The rows of one JSON-lines file of the data folder."""
    if not (DATA / name).is_file():
        raise SystemExit(
            f"no evaluation data: {DATA / name} does not exist. Set ENGRAM_DATA to the folder that "
            "holds it; docs/results.md says what the sets are and where they come from."
        )
    with (DATA / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def last_per_subject(records: Iterable[Row]) -> list[Row]:
    """One row per subject: a later row replaces an earlier one."""
    return list({row["subject"]: row for row in records}.values())


def first_per_subject(records: Iterable[Row]) -> list[Row]:
    kept: dict[str, Row] = {}
    for row in records:
        kept.setdefault(row["subject"], row)
    return list(kept.values())


# --- scored sets ---------------------------------------------------------


def zsre() -> QuestionSet:
    chosen = QuestionSet("zsre")
    for row in last_per_subject(rows("editing/zsre_3k_first2000.jsonl")):
        fact = chosen.teach(row["src"], row["subject"], row["alt"])
        chosen.ask(row["rephrase"], "rephrased", fact)
        chosen.ask(row["loc"], "unrelated")
    return chosen


def wikibigedit() -> QuestionSet:
    chosen = QuestionSet("wikibigedit")
    records = last_per_subject(rows("editing/wikibigedit_3k_first2000.jsonl"))
    prompts = {row["prompt"] for row in records}
    for row in records:
        fact = chosen.teach(row["prompt"], row["subject"], row["target_new"])
        chosen.ask(row["rephrase_prompt"], "rephrased", fact)
        if row["locality_prompt"] not in prompts:
            chosen.ask(row["locality_prompt"], "near miss")
    return chosen


def _names_any(text: str, names: Iterable[str]) -> bool:
    return any(name in text for name in names)


def _counterfact(name: str, records: list[Row], extra: bool) -> QuestionSet:
    chosen = QuestionSet(name)
    subjects = {row["subject"] for row in records}
    for row in records:
        fact = chosen.teach(row["prompt"], row["subject"], row["target_new"])
        for text in row["paraphrases"]:
            chosen.ask(text, "paraphrase", fact)
        if row["rome_paraphrase"]:
            chosen.ask(row["rome_paraphrase"], "after distracting sentence", fact)
        for near in row["neighborhood"]:
            if not _names_any(near["prompt"], subjects):
                chosen.ask(near["prompt"], "neighbour")
        if row["locality_prompt"] and not _names_any(row["locality_prompt"], subjects):
            chosen.ask(row["locality_prompt"], "locality")
        if extra and row["generation_prompt"]:
            chosen.ask(row["generation_prompt"], "other relation")
    return chosen


def counterfact() -> QuestionSet:
    records = first_per_subject(rows("editing/counterfact.jsonl"))[:1000]
    return _counterfact("counterfact", records, True)


def stack_faq() -> QuestionSet:
    chosen = QuestionSet("stack_faq")
    for row in rows("support/stack_faq.jsonl"):
        fact = chosen.teach(row["question"], None, str(row["id"]))
        for text in row["paraphrases"]:
            chosen.ask(text, "rephrased", fact)
    for row in rows("support/clinc_out_of_scope_val.jsonl"):
        chosen.ask(row["text"], "out of scope")
    return chosen


def faq_half(half: int) -> QuestionSet:
    """Every StackFAQ question is taught; the rephrasings of every other one are asked."""
    whole = stack_faq()
    asked = [item for item in whole.asked if item.target != SILENCE and item.target % 2 == half]
    return QuestionSet(
        f"stack_faq half {half}", whole.taught, [item._replace(group="faq") for item in asked]
    )


def keys() -> QuestionSet:
    chosen = QuestionSet("keys")
    taught = {row["key"]: row["value"] for row in rows("poc/5k_train.jsonl")}
    for key, value in taught.items():
        fact = chosen.teach(key, key, value)
        chosen.ask(key, "taught key", fact)
    for key in {row["key"]: 0 for row in rows("poc/5k_test.jsonl")}:
        if key not in taught:
            chosen.ask(key, "unseen key")
    return chosen


_CLOZE = (
    re.compile(
        r"^The (?:country of citizenship|country of origin|place of \w+|basic form of government"
        r"|country for sport played|[\w ,'-]*?) (?:of|for|in|by) (.+?) (?:is|are|was)$"
    ),
    re.compile(r"^(.+?) (?:is|are|was|has|shares)\b"),
)


def _cloze_subject(text: str) -> str | None:
    found = next((m for m in (pattern.match(text) for pattern in _CLOZE) if m), None)
    return found.group(1) if found else None


def _plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _mentions(text: str, subjects: set[tuple[str, ...]], least: int) -> bool:
    """Whether any run of at least `least` words of the text is one of the subjects."""
    found = _plain(text)
    return any(
        tuple(found[start:end]) in subjects
        for start in range(len(found))
        for end in range(start + least, min(len(found), start + 10) + 1)
    )


def wikidata() -> QuestionSet:
    chosen = QuestionSet("wikidata_cloze")
    records = rows("facts/wikidata_cloze.jsonl")
    random.Random(1).shuffle(records)
    taught = records[:4000]
    known = {row["context"] for row in taught}
    subjects = {tuple(_plain(_cloze_subject(row["context"]) or "")) for row in taught} - {()}
    for row in taught:
        chosen.teach(row["context"], _cloze_subject(row["context"]), row["continuation"])
    for row in records[4000:]:
        if row["context"] not in known and len(chosen.asked) < 4000:
            asked = tuple(_plain(_cloze_subject(row["context"]) or ""))
            same = asked in subjects or _mentions(row["context"], subjects, 2)
            chosen.ask(row["context"], "other relation" if same else "other subject")
    return chosen


# --- sentences written for this benchmark ---------------------------------

# Per kind of subject: relation -> ways to ask it.  [X] stands for the subject.
# The relations of one kind are the "same subject, other relation" questions of
# one another.
WAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "birth place": (
            "Where was [X] born?",
            "What is the birthplace of [X]?",
            "[X] was born in",
            "In which town did [X] come into the world?",
            "[X] birth place?",
        ),
        "birth date": (
            "When was [X] born?",
            "What is the date of birth of [X]?",
            "In which year was [X] born?",
            "[X] birthday?",
        ),
        "death place": (
            "Where did [X] die?",
            "[X] passed away in the city of",
            "What is the place of death of [X]?",
            "[X] place of death?",
        ),
        "death date": (
            "When did [X] die?",
            "What is the date of death of [X]?",
            "In what year did [X] pass away?",
        ),
        "spouse": (
            "Who is [X] married to?",
            "What is the name of [X]'s wife or husband?",
            "Who is the spouse of [X]?",
            "[X] spouse?",
        ),
        "child": (
            "Who is [X]'s child?",
            "What is the name of the child of [X]?",
            "Whom did [X] have as a son or daughter?",
        ),
        "father": ("Who is the father of [X]?", "[X]'s father is named", "Whose child is [X]?"),
        "mother": ("Who is the mother of [X]?", "[X]'s mother is named", "[X] mother?"),
        "school": (
            "Where was [X] educated?",
            "Which university did [X] attend?",
            "Where did [X] go to college?",
            "[X] alma mater?",
        ),
        "work": (
            "What kind of work does [X] do?",
            "What is the occupation of [X]?",
            "By profession, [X] is a",
            "[X] job?",
        ),
        "employer": (
            "Who is the employer of [X]?",
            "Which company does [X] work for?",
            "[X] works for",
            "Who employs [X]?",
        ),
        "citizenship": (
            "Which country is [X] a citizen of?",
            "What is the nationality of [X]?",
            "[X] holds a citizenship from",
            "What country is [X] from?",
        ),
        "language": (
            "What is the native language of [X]?",
            "[X] spoke the language",
            "Which language does [X] speak?",
            "The mother tongue of [X] is",
        ),
        "religion": (
            "What is the religion of [X]?",
            "[X] is a follower of",
            "Which faith does [X] belong to?",
        ),
        "position": (
            "What position does [X] play?",
            "[X] plays in the position of",
            "In which role does [X] play on the field?",
        ),
        "team": ("Which team does [X] play for?", "What club is [X] a member of?", "[X] team?"),
        "fame": (
            "What is [X] famous for?",
            "What is [X] best known for?",
            "What is a notable work of [X]?",
        ),
        "award": ("Which award did [X] receive?", "What prize was [X] given?"),
        "instrument": ("What instrument does [X] play?", "[X] plays the instrument"),
    },
    "organisation": {
        "founder": (
            "Who founded [X]?",
            "Who is the founder of [X]?",
            "[X] was founded by",
            "[X] founder?",
        ),
        "owner": (
            "Who owns [X]?",
            "[X] is owned by",
            "Which company is the parent of [X]?",
            "[X] owner?",
        ),
        "seat": (
            "Where is the headquarter of [X]?",
            "Where is [X] headquartered?",
            "[X] has its main office in",
            "[X] headquarters?",
        ),
        "founding place": (
            "Where was [X] founded?",
            "In which city was [X] started?",
            "[X] was formed in the city of",
        ),
        "founding date": (
            "When was [X] founded?",
            "In what year was [X] established?",
            "What is the inception date of [X]?",
            "[X] founding year?",
        ),
        "head": (
            "Who is the CEO of [X]?",
            "The chief executive of [X] is",
            "Who leads [X]?",
            "[X] CEO?",
        ),
        "staff": ("How many employees does [X] have?", "What is the head count of [X]?"),
        "product": ("What does [X] produce?", "Which product does [X] make?"),
        "industry": ("Which industry does [X] belong to?", "In what business is [X] active?"),
    },
    "place": {
        "country": (
            "Which country is [X] located in?",
            "In what country can [X] be found?",
            "[X] is located in the country of",
            "[X] country?",
        ),
        "continent": ("Which continent is [X] located on?", "[X] belongs to the continent of"),
        "population": (
            "How many people live in [X]?",
            "What is the population of [X]?",
            "How large is the number of inhabitants of [X]?",
            "[X] population?",
        ),
        "area": ("What is the area of [X]?", "How many square kilometres does [X] cover?"),
        "mayor": ("Who is the mayor of [X]?", "Who governs the town of [X]?", "[X] mayor?"),
        "twin": ("What is the twin city of [X]?", "[X] is a twin city of"),
        "namesake": ("What is [X] named after?", "Where does the name of [X] come from?"),
        "elevation": ("How high above sea level is [X]?", "What is the elevation of [X]?"),
        "zone": ("What time zone is [X] in?", "[X] time zone?"),
        "architect": ("Who designed [X]?", "Which architect planned [X]?"),
    },
    "work": {
        "author": (
            "Who is the author of [X]?",
            "Who wrote [X]?",
            "[X] was written by",
            "[X] author?",
        ),
        "performer": ("Who performed [X]?", "Which singer recorded [X]?", "[X] performer?"),
        "creator": (
            "Who was [X] created by?",
            "Who is the creator of [X]?",
            "[X] was the creation of",
        ),
        "director": ("Who directed [X]?", "The director of [X] is who?", "[X] director?"),
        "label": (
            "What music label is [X] represented by?",
            "Which record label released [X]?",
            "[X] record label?",
        ),
        "language": (
            "Which language was [X] written in?",
            "What is the original language of [X]?",
            "The language of [X] is",
        ),
        "origin": ("Which country was [X] created in?", "What is the country of origin of [X]?"),
        "date": (
            "When was [X] published?",
            "What is the release date of [X]?",
            "In what year did [X] come out?",
            "[X] release year?",
        ),
        "genre": (
            "What is the genre of [X]?",
            "What type of music does [X] play?",
            "Which style is [X]?",
        ),
        "maker": (
            "Which company is [X] produced by?",
            "Who is the manufacturer of [X]?",
            "[X] is a product of",
        ),
        "cast": ("Who is the star of [X]?", "Which actor plays the lead in [X]?"),
        "series": ("Which series is [X] part of?", "What series does [X] belong to?"),
    },
    "service": {
        "port": (
            "What port does the [X] use?",
            "Which port does the [X] listen on?",
            "On what port is the [X] reachable?",
            "[X] port?",
            "port of the [X]",
        ),
        "owner": (
            "Who owns the [X]?",
            "Which team is responsible for the [X]?",
            "Who do I ask about the [X]?",
            "[X] owner?",
        ),
        "log": (
            "Where are the logs of the [X]?",
            "Where does the [X] write its log files?",
            "[X] logs?",
        ),
        "database": (
            "Which database does the [X] use?",
            "Where does the [X] store its data?",
            "[X] database?",
        ),
        "restart": (
            "How do I restart the [X]?",
            "How can the [X] be started again?",
            "restart [X]",
        ),
        "host": (
            "What host does the [X] run on?",
            "On which machine is the [X] deployed?",
            "[X] host?",
        ),
        "contact": ("What is the email address for the [X]?", "How do I contact the [X] people?"),
        "hours": (
            "When is the [X] open?",
            "What are the opening hours of the [X]?",
            "[X] opening hours?",
        ),
        "price": ("How much does the [X] cost?", "What is the price of the [X]?", "[X] price?"),
        "version": (
            "What version of the [X] do we run?",
            "Which release is the [X] on?",
            "[X] version?",
        ),
    },
}

KIND_OF_RELATION = {
    "P17": "place", "P19": "person", "P20": "person", "P26": "person", "P30": "place",
    "P40": "person", "P50": "work", "P69": "person", "P106": "person", "P112": "organisation",
    "P127": "organisation", "P131": "place", "P159": "organisation", "P170": "work",
    "P175": "work", "P176": "work", "P264": "work", "P276": "place", "P407": "work",
    "P413": "person", "P495": "work", "P740": "organisation", "P800": "person",
}  # fmt: skip

SERVICE_FIRST = [
    "payment",
    "invoice",
    "inventory",
    "login",
    "mail",
    "backup",
    "report",
    "image",
    "video",
    "chat",
    "order",
    "shipping",
    "customer",
    "weather",
    "map",
    "translation",
    "voice",
    "camera",
    "printer",
    "vacation",
    "travel",
    "payroll",
    "training",
    "security",
    "parking",
    "lunch",
    "library",
    "archive",
    "metrics",
    "cache",
    "queue",
    "session",
    "profile",
    "photo",
    "ticket",
    "feedback",
    "recommendation",
    "fraud",
    "tax",
    "audit",
    "legal",
    "warehouse",
    "catalogue",
    "coupon",
    "checkout",
    "upload",
    "export",
    "import",
    "event",
    "calendar",
    "contact",
    "sms",
    "proxy",
]
SERVICE_LAST = [
    "service",
    "gateway",
    "server",
    "team",
    "desk",
    "worker",
    "office",
    "system",
    "tool",
    "dashboard",
    "api",
]


def _subject_of(row: Row, templates: dict[str, str]) -> str | None:
    before, after = templates[row["relation"]].split("[X]")
    text = row["question"]
    if text.startswith(before) and text.endswith(after):
        return str(text[len(before) : len(text) - len(after)])
    return None


def subjects_by_kind() -> dict[str, list[str]]:
    """Subjects of the EntityQuestions rows, and services made of two words."""
    templates = json.loads((DATA / "facts/entity_questions_templates.json").read_text("utf-8"))
    found: dict[str, list[str]] = {kind: [] for kind in WAYS}
    for row in rows("facts/entity_questions_dev.jsonl"):
        kind, name = KIND_OF_RELATION.get(row["relation"]), _subject_of(row, templates)
        if kind and name:
            found[kind].append(name)
    found["service"] = [f"{a} {b}" for a in SERVICE_FIRST for b in SERVICE_LAST]
    return {kind: sorted(set(names)) for kind, names in found.items()}


def neighbour_name(name: str, names: list[str], chance: random.Random) -> str:
    """Another name that shares words with this one where it has several."""
    parts = name.split()
    other = chance.choice(names)
    spot = chance.randrange(len(parts))
    word = chance.choice(other.split())
    kind = chance.random()
    if kind < 0.15:
        return " ".join([*parts[:spot], word, *parts[spot:]])
    if kind < 0.35 and len(parts[spot]) > 5:
        word = parts[spot][: len(parts[spot]) // 2] + word[len(word) // 2 :]
    elif len(parts) < 2:
        return other
    return " ".join([*parts[:spot], word, *parts[spot + 1 :]])


def typo(text: str, keep: str, chance: random.Random) -> str:
    """One slip of the keyboard in a longer word that is not in `keep`."""
    spots = [m for m in re.finditer(r"[a-z]{5,}", text) if m.group() not in keep.lower()]
    if not spots:
        return text
    word = chance.choice(spots)
    at = word.start() + chance.randrange(1, len(word.group()) - 2)
    swapped = text[at + 1] + text[at]
    return (
        text[:at] + chance.choice([swapped, text[at], text[at] * 2 + text[at + 1]]) + text[at + 2 :]
    )


def dressed(text: str, keep: str, chance: random.Random) -> str:
    """The text as people type it: often lower case, unpunctuated, with a slip."""
    change = chance.random()
    if change < 0.2:
        return text.lower().rstrip("?")
    if change < 0.3:
        return typo(text, keep, chance)
    if change < 0.35:
        return text.upper()
    return text


def written(seed: int, facts: int, half: int, per_fact: int = 2) -> QuestionSet:
    """Facts in the sentences above; asked again, of other subjects, of other relations.

    `half` says which relations are used: one half is fitted, the other scored.
    """
    chance = random.Random(seed)
    names = subjects_by_kind()
    chosen = QuestionSet(f"written-{seed}")
    picked = [
        (kind, name)
        for kind, known in names.items()
        for name in chance.sample(known, min(len(known), facts))
    ]
    taught = {name.lower() for _, name in picked}
    for kind, name in picked:
        _ask_written(chosen, kind, name, names[kind], taught, chance, per_fact, half)
    return chosen


def _ask_written(
    chosen: QuestionSet, kind: str, name: str, names: list[str], taught: set[str],
    chance: random.Random, per_fact: int, half: int,
) -> None:  # fmt: skip
    def put(text: str, who: str) -> str:
        text = text.replace("[X]", who)
        text = text[0].upper() + text[1:] if chance.random() < 0.7 else text
        return dressed(text, who, chance)

    relations = {name: WAYS[kind][name] for name in sorted(WAYS[kind])[half::2]}
    several = chance.sample(sorted(relations), 2 if chance.random() < 0.4 else 1)
    for relation in several:
        ways = list(relations[relation])
        stored = chance.choice(ways)
        fact = chosen.teach(stored.replace("[X]", name), name, f"{relation}/{name}")
        ways.remove(stored)
        for way in chance.sample(ways, min(per_fact, len(ways))):
            chosen.ask(put(way, name), "rephrased", fact)
        for _ in range(per_fact):
            who = neighbour_name(name, names, chance)
            way = chance.choice([stored, *ways])
            if who.lower() not in taught:
                chosen.ask(put(way, who), "other subject")
    for other in chance.sample(sorted(set(relations) - set(several)), per_fact):
        chosen.ask(put(chance.choice(relations[other]), name), "other relation")


def written_scored() -> QuestionSet:
    chosen = written(99, 100, half=1)
    chosen.name = "written"
    return chosen


# --- fitted sets ------------------------------------------------------------


def zsre_fit() -> QuestionSet:
    chosen = QuestionSet("zsre_eval")
    scored = {row["subject"] for row in rows("editing/zsre_3k_first2000.jsonl")}
    for row in last_per_subject(rows("editing/zsre_eval.jsonl")):
        if row["subject"] in scored:
            continue
        fact = chosen.teach(row["src"], row["subject"], row["alt"])
        chosen.ask(row["rephrase"], "rephrased", fact)
        chosen.ask(row["loc"], "unrelated")
        chosen.ask(row["portability"]["New Question"], "other relation")
    return chosen


def counterfact_fit() -> QuestionSet:
    records = first_per_subject(rows("editing/counterfact.jsonl"))[1000:2500]
    return _counterfact("counterfact later rows", records, True)


def relations_fit() -> QuestionSet:
    """LRE templates: another template, another subject, another relation."""
    chance = random.Random(5)
    chosen = QuestionSet("relations_lre")
    folder = DATA / "facts/relations_lre/data/factual"
    tables = {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }
    for name, table in tables.items():
        _relation_rows(chosen, name, table, tables, chance)
    return chosen


def _relation_rows(
    chosen: QuestionSet, name: str, table: Row, tables: dict[str, Row], chance: random.Random
) -> None:
    ways = [*table["prompt_templates"], *table["prompt_templates_zs"]]
    samples = list({row["subject"]: row for row in table["samples"]}.values())
    chance.shuffle(samples)
    samples = samples[:120]
    kind = table["properties"]["domain_name"]
    rivals = [
        way for other, rest in tables.items()
        if other != name and rest["properties"]["domain_name"] == kind and "landmark" not in other
        for way in rest["prompt_templates_zs"]
    ]  # fmt: skip
    half = len(samples) // 2
    for row in samples[:half]:
        stored = chance.choice(ways)
        fact = chosen.teach(stored.format(row["subject"]), row["subject"], row["object"])
        for way in chance.sample(ways, min(2, len(ways))):
            chosen.ask(
                dressed(way.format(row["subject"]), row["subject"], chance), "rephrased", fact
            )
        if rivals:
            chosen.ask(chance.choice(rivals).format(row["subject"]), "other relation")
    for row in samples[half:]:
        chosen.ask(chance.choice(ways).format(row["subject"]), "other subject")


def hops_fit() -> QuestionSet:
    """MQuAKE: long questions in three wordings; one-hop questions of the same subject."""
    chosen = QuestionSet("mquake")
    for row in rows("editing/mquake_hard.jsonl"):
        first = row["requested_rewrite"][0]
        fact = chosen.teach(row["questions"][0], first["subject"], row["new_answer"])
        for text in row["questions"][1:]:
            chosen.ask(text, "rephrased", fact)
        chosen.ask(first["question"], "other relation")
    return _only_single(chosen)


def _only_single(chosen: QuestionSet) -> QuestionSet:
    """Drops facts that share a subject with an earlier one, with their questions."""
    seen: set[str | None] = set()
    kept: dict[int, int] = {}
    single = QuestionSet(chosen.name)
    for place, fact in enumerate(chosen.taught):
        if fact.subject not in seen:
            seen.add(fact.subject)
            kept[place] = single.teach(*fact)
    for item in chosen.asked:
        if item.target in kept:
            single.ask(item.text, item.group, kept[item.target])
        elif item.target == SILENCE:
            single.ask(item.text, item.group)
    return single


def one_hop_fit() -> QuestionSet:
    """MQuAKE's single facts: the cloze prompt is taught, the question asked."""
    chosen = QuestionSet("mquake one hop")
    facts = {}
    for row in rows("editing/mquake_hard.jsonl"):
        for part in row["requested_rewrite"]:
            facts[part["subject"], part["relation_id"]] = part
    parts = list(facts.values())
    random.Random(6).shuffle(parts)
    for place, part in enumerate(parts):
        if place % 2:
            chosen.ask(part["question"], "other subject or relation")
            continue
        text = part["prompt"].format(part["subject"])
        fact = chosen.teach(text, part["subject"], part["target_new"]["str"])
        chosen.ask(part["question"], "rephrased", fact)
    return chosen


def codes_fit() -> QuestionSet:
    """Identifiers: codes that differ in one place, UUIDs, airport and disease codes."""
    chance = random.Random(7)
    chosen = QuestionSet("codes")
    stems = ("order {}", "Ticket #{}", "PRJ-{}", "What is the status of order {}?", "error code {}",
             "Who opened ticket {}?", "part:{}", "ITEM_{}", "invoice {} amount")  # fmt: skip
    for stem in stems:
        numbers = chance.sample(range(1000, 60000), 90)
        for place, number in enumerate(numbers):
            code = str(number).zfill(5)
            text = stem.format(code)
            if place >= 60:
                chosen.ask(text, "other code")
                continue
            fact = chosen.teach(text, code, f"answer {number}")
            chosen.ask(dressed(text, text, chance), "same code", fact)
    _named_codes(chosen, chance)
    return chosen


def _named_codes(chosen: QuestionSet, chance: random.Random) -> None:
    with (DATA / "lookup/airports.csv").open(encoding="utf-8", newline="") as file:
        airports = chance.sample([r for r in csv.DictReader(file) if r.get("iata")], 240)
    with gzip.open(DATA / "facts/kv_retrieval_75_keys.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = json.loads(next(lines))["ordered_kv_records"]
    named = [(f"AIRPORT:{r['iata']}", r["name"]) for r in airports] + [tuple(p) for p in pairs]
    named += [(f"NAME:{r['name']}", r["iata"]) for r in airports]
    chance.shuffle(named)
    for place, (key, value) in enumerate(named):
        if place % 3 == 0:
            chosen.ask(key, "other code")
            continue
        fact = chosen.teach(key, key, value)
        chosen.ask(dressed(key, key, chance), "same code", fact)


SCORED: tuple[Callable[[], QuestionSet], ...] = (
    zsre, wikibigedit, counterfact, stack_faq, keys, wikidata, written_scored,
)  # fmt: skip


def scored() -> Iterator[QuestionSet]:
    for build in SCORED:
        yield build()


def fitted() -> Iterator[QuestionSet]:
    yield zsre_fit()
    yield counterfact_fit()
    yield relations_fit()
    yield hops_fit()
    yield one_hop_fit()
    yield codes_fit()
    yield written(11, 40, half=0)
    yield written(12, 150, half=0)
    for seed in range(20, 24):  # nearly empty memories
        yield written(seed, 4, half=0)
