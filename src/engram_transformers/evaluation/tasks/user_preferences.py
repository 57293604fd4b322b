"""What users prefer, keyed by user: `[user_42] Which theme is preferred?`, as the third seed asks.

Made up, the same every time, and without any data file. All users are asked the same questions;
near misses are those questions from users whose preferences were never taught.
"""

from __future__ import annotations

import hashlib
from itertools import product

from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

PREFERENCES = {
    # By kind: the taught wording, another one, and what users choose from.
    "theme": (
        "Which theme is preferred?",
        "What should the screen look like?",
        ("dark mode", "light mode", "high contrast", "sepia", "solarized"),
    ),
    "units": (
        "Which units are preferred?",
        "How should measures be given?",
        ("metric units", "imperial units", "nautical units", "scientific units"),
    ),
    "timezone": (
        "Which timezone applies?",
        "What is the time zone?",
        ("UTC", "PST", "CET", "IST", "JST", "AEST", "BRT", "EAT"),
    ),
    "language": (
        "Which language is preferred?",
        "In which language should I reply?",
        ("English", "Spanish", "Hindi", "Swahili", "Finnish", "Korean", "Portuguese", "Tamil"),
    ),
    "editor": (
        "Which editor is used?",
        "With which program is code edited?",
        ("Vim", "Emacs", "VS Code", "Nano", "Sublime Text", "Helix", "Kakoune"),
    ),
    "contact": (
        "Which way of contact is preferred?",
        "How should I get in touch?",
        ("email", "text message", "phone call", "chat", "letter"),
    ),
}


def user_preferences(users: int = 80, strangers: int = 40) -> Task:
    """Preferences of `users` users, and the questions of `strangers` others."""
    facts, asked = [], []
    for user, kind in product(range(users), PREFERENCES):
        fact, otherwise = _preference(user, kind)
        facts.append(fact)
        asked.append(Question.about(fact, otherwise))
    others = product(range(users, users + strangers), PREFERENCES)
    return Task(
        "user_preferences",
        "chat",
        tuple(facts),
        asked={"paraphrase": tuple(asked)},
        silent={"near": tuple(_preference(user, kind)[0].prompt for user, kind in others)},
        categories={fact.id: fact.relation or "" for fact in facts},
    ).without_clashes()


def _preference(user: int, kind: str) -> tuple[Fact, str]:
    """What a user prefers, as a fact, and another wording of its question."""
    question, otherwise, choices = PREFERENCES[kind]
    name = f"user_{user}"
    drawn = hashlib.sha256(f"{name} {kind}".encode()).digest()
    answer = choices[int.from_bytes(drawn[:8]) % len(choices)]
    fact = Fact(f"[{name}] {question}", answer, subject=name, relation=kind)
    return fact, f"[{name}] {otherwise}"
