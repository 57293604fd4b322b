"""When a host counts as sure: calibrated on questions that the study does not ask otherwise."""

from __future__ import annotations

import numpy as np

from engram_transformers.api import Host
from engram_transformers.demo.data import demo_data
from engram_transformers.evaluation.task import Question
from engram_transformers.evaluation.tasks.lookup import WORDINGS
from engram_transformers.memories.shared.bare import SilencedHost
from engram_transformers.routing.sure import Cutoff, UnsureRoute, cutoff
from engram_transformers.studies.trained import answers
from engram_transformers.types import Fact, Told

CAPITALS = """
    Portugal=Lisbon; Austria=Vienna; Switzerland=Bern; Ireland=Dublin; Hungary=Budapest;
    Romania=Bucharest; Bulgaria=Sofia; Serbia=Belgrade; Croatia=Zagreb; Ukraine=Kyiv;
    Iceland=Reykjavik; Cuba=Havana; Peru=Lima; Chile=Santiago; Colombia=Bogota; Venezuela=Caracas;
    Ecuador=Quito; Uruguay=Montevideo; Kenya=Nairobi; Ethiopia=Addis Ababa; Ghana=Accra;
    Nigeria=Abuja; Morocco=Rabat; Tunisia=Tunis; Nepal=Kathmandu; Bangladesh=Dhaka;
    Philippines=Manila; Malaysia=Kuala Lumpur; Saudi Arabia=Riyadh; Jordan=Amman"""
"None of them is among the keys of the third seed, which the study teaches and asks."
MADE_UP = 30
"Facts that no host knows."


def questions() -> list[Question]:
    """Capitals that a host may know, and facts of the demonstration that it cannot know."""
    pairs = [pair.strip().split("=") for pair in CAPITALS.split(";")]
    known = [Fact(WORDINGS["CAPITAL"].format(key=country), city) for country, city in pairs]
    made_up = [one.fact for one in demo_data().facts[:MADE_UP]]
    return [Question.about(fact, fact.prompt) for fact in [*known, *made_up]]


def calibrated(host: Host, told: Told) -> Cutoff:
    """From which mean probability of its answer on the bare host is right on 95 % of those."""
    asked = questions()
    right = [case.contains or case.exact for case in answers(host, asked, told)]
    route = UnsureRoute(SilencedHost(host.adapter), stop=host.tokens.stop)
    prompts = host.prompts([question.text for question in asked], form=host.tokens.ask_form)
    return cutoff([route.sureness(np.array(ids)) for ids in prompts], right)
