"""Does a text look something up? Rules: what it begins with, and nothing that it merely holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engram_transformers.models.tokens import HostTokens, last_question
from engram_transformers.routing.route import Ids, Routing

LOOKUP_PREFIXES = (
    "CAPITAL:",
    "PORT:",
    "HTTP:",
    "ELEMENT:",
    "ELEMENT_NAME:",
    "ELEMENT_NUM:",
    "ACRONYM:",
    "CONVERT:",
    "CODE:",
    "DEFINE:",
    "LOOKUP:",
)
"Keys that ask for a value, as the third seed lists them; what follows is the key's own part."
FACTUAL_PATTERNS = (
    r"what is the capital of\b",
    r"(?:what|which) port does\b",
    r"what does\b.+\b(?:mean|stand for)\b",
    r"define\b",
    r"expand\b",
    r"(?:what is )?the meaning of\b",
    r"what stands? for\b",
)
"Beginnings of questions that ask for one fact."
_KEY = re.compile(r"[A-Z][A-Z0-9_]+:\S")
_ENTITY = re.compile(r"\[[A-Za-z]+_?\d+\]\s*\S")
_ADDRESS = re.compile(r"[A-Za-z]+://")
_TIME = re.compile(r"\b\d{1,2}:\d{2}\b")
KEY, FACTUAL, SHORT = 1.0, 0.7, 0.5


@dataclass(frozen=True)
class LookupPatternDetector:
    """How surely a text is a look-up, from 0 to 1, by rules alone.

    1 for a key (`ACRONYM:GPU`, `[Q937] place of birth`, and any other `NAME:value` in capitals),
    0.7 for a question that begins as questions for one fact do, 0.5 for at most three words with a
    colon among them that is none of a time or a web address, else 0. Only the beginning of the
    text's last line counts: `the CODE: red book` is no key. (The third seed looked for its prefixes
    anywhere.)
    """

    prefixes: Sequence[str] = LOOKUP_PREFIXES
    patterns: Sequence[str] = FACTUAL_PATTERNS

    def __call__(self, text: str) -> float:
        asked = last_question(text) or text.strip()
        if _ADDRESS.match(asked):
            return 0.0
        if self._is_key(asked):
            return KEY
        if any(re.match(pattern, asked, re.I) for pattern in self.patterns):
            return FACTUAL
        words = asked.split()
        inside = ":" in _TIME.sub("", asked) and "://" not in asked and not asked.endswith(":")
        return SHORT if inside and len(words) <= 3 else 0.0

    def _is_key(self, asked: str) -> bool:
        named = any(asked.startswith(p) and asked[len(p) :].strip() for p in self.prefixes)
        return named or bool(_KEY.match(asked) or _ENTITY.match(asked))


@dataclass(frozen=True)
class RuleRoute:
    """Open where the last question of a prompt is a look-up by rules; costs no pass of the host."""

    tokens: HostTokens
    detector: Callable[[str], float] = LookupPatternDetector()
    threshold: float = SHORT

    def decide(self, prompt: Ids) -> Routing:
        """May a memory act on a prompt of these ids?"""
        asked = self.tokens.last_question(prompt, len(prompt))
        score = self.detector(asked)
        found = score >= self.threshold
        shown = asked if len(asked) <= 60 else f"{asked[:57]}..."
        reason = f"{shown!r} {'looks' if found else 'does not look'} like a look-up"
        return Routing(found, score, self.threshold, reason)
