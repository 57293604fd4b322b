"""Sentences that claim one thing of one subject, and the questions that they answer.

A small grammar, written down as a table: what the sentence looks like, what it says of whom, and
how one asks for it. What does not fit a line of it is no claim; nothing is guessed. English has all
lines; German, French and Spanish have "the relation of the subject is the value".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from engram_transformers.stores.text import normalise


@dataclass(frozen=True)
class Claim:
    """One thing that a sentence says of a subject, all as it is written there."""

    subject: str
    relation: str
    value: str
    question: str
    "What one asks to be told the value."
    denied: str | None = None
    "The value that the sentence says is wrong: `not Sydney`."

    @property
    def key(self) -> tuple[str, str]:
        """What two claims about the same thing have in common."""
        return fold(self.subject), fold(self.relation)


@dataclass(frozen=True)
class Form:
    """One way to say something, with the ways to ask for it.

    `{s}` stands for the subject, `{v}` for the value, `{r}` for a relation that is named.
    """

    relation: str
    says: tuple[str, ...]
    asks: tuple[str, ...]
    "The first one is how a claim's question is written."
    value: str | None = None
    "What the value has to look like."


YEAR = r"(?:in )?(?:[A-Z][a-z]+ )?(?:\d{1,2},? )?(?:AD )?\d{3,4}(?: BC)?"
_MADE = {
    "author": "wrote|written",
    "painter": "painted|painted",
    "composer": "composed|composed",
    "inventor": "invented|invented",
    "discoverer": "discovered|discovered",
    "director": "directed|directed",
    "founder": "founded|founded",
    "developer": "developed|developed",
    "designer": "designed|designed",
}
PEOPLE = re.compile(
    r"\b(author|president|minister|chancellor|king|queen|mayor|owner|ceo|cto|cfo|founder|inventor|"
    r"director|head|leader|captain|coach|governor|manager|maintainer|wife|husband|mother|father|"
    r"son|daughter|brother|treasurer|lead|chair\w*|secretary|sister|writer|composer|painter|singer|developer|designer|discoverer)$",
    re.IGNORECASE,
)
"Relations whose value is a person."

ASKS = ("What is the {r} of {s}?", "Who is the {r} of {s}?")
"How one asks for a relation that is named, of things and of people."

FORMS = (
    Form("year of birth", ("{s} was born (?:in|on) {v}",), ("When was {s} born?",), YEAR),
    Form("place of birth", ("{s} was born in {v}",), ("Where was {s} born?",)),
    Form("year of death", ("{s} died (?:in|on) {v}",), ("When did {s} die?",), YEAR),
    Form("place of death", ("{s} died in {v}",), ("Where did {s} die?",)),
    Form("year of founding", ("{s} was founded in {v}",), ("When was {s} founded?",), YEAR),
    Form("location", ("{s} (?:is|are) located in {v}", "{s} lies in {v}"), ("Where is {s}?",)),
    Form(
        "port",
        ("{s} (?:uses|runs on|listens on|is on) port {v}",),
        ("What port does {s} use?", "Which port does {s} use?"),
        r"\d+",
    ),
    Form("price", ("{s} costs? {v}",), ("How much does {s} cost?",), r".*\d.*"),
    Form(
        "opening time",
        ("{s} opens at {v}",),
        ("When does {s} open?", "At what time does {s} open?"),
        r".*\d.*|noon|midnight",
    ),
    *(
        Form(
            relation,
            (f"{{v}} {verbs.split('|')[0]} {{s}}", f"{{s}} was {verbs.split('|')[1]} by {{v}}"),
            (f"Who {verbs.split('|')[0]} {{s}}?", f"By whom was {{s}} {verbs.split('|')[1]}?"),
        )
        for relation, verbs in _MADE.items()
    ),
    *(
        Form(
            "number of {r}",
            (f"{{s}} {has} {{v}} {{r}}",),
            (f"How many {{r}} {does} {{s}} have?",),
            r"\d[\d.,]*|no|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve",
        )
        for has, does in (("has", "does"), ("have", "do"))
    ),
    Form(
        "{r}",
        ("the {r} of {s} (?:is|are|was|were) {v}", "{s}(?:'s|’s) {r} (?:is|are|was|were) {v}"),
        (
            *ASKS,
            "(?:What|Who|Which) (?:is|are|was|were) (?:the )?{r} of {s}?",
            "(?:What|Who|Which) (?:is|are|was|were) {s}(?:'s|’s) {r}?",
        ),
    ),
    Form("{r}", ("{v} (?:is|was) the {r} of {s}",), ()),
    Form("{r}", ("{v} (?:is|was) {s}(?:'s|’s) {r}",), ()),
    Form(
        "{r}",
        (r"(?:die|der|das) {r} (?:von|des|der) {s} (?:ist|war|heißt) {v}",),
        ("Was ist die {r} von {s}?", "(?:Was|Wer|Wie) (?:ist|heißt) (?:die|der|das) {r} von {s}?"),
    ),
    Form(
        "{r}",
        (r"(?:la |le |l['’]){r} (?:de la |de l['’]|du |de |d['’]){s} (?:est|était) {v}",),
        ("Quelle est la {r} de {s} ?",),
    ),
    Form(
        "{r}",
        (r"(?:la|el) {r} (?:de la|del|de) {s} (?:es|era) {v}",),
        ("¿Cuál es la {r} de {s}?",),
    ),
)

SUBJECT = r"(?P<s>(?:the |The )?\S[^?!;:]{0,78}?)"
RELATION = r"(?P<r>[^\W\d_][\w -]{1,38}?)"
VALUE = r"(?P<v>\S[^?!;]{0,158}?)"
DENIAL = re.compile(
    r"(?:,| -| –| —|;)? (?:(?:and|but) )?(?:it's |it is )?"
    r"(?:not|rather than|instead of|nicht|und nicht|pas|et non|y no|no) (?P<x>[^,.;!?]{1,80})$",
    re.IGNORECASE,
)
PRONOUNS = re.compile(
    r"^(?:it|he|she|they|we|you|i|this|that|these|those|its|his|her|their|there|who|which|what)$",
    re.IGNORECASE,
)
SUBCLAUSE = re.compile(
    r"\b(?:that|because|who|where|which|if|when|but|said|says|is|are|was|were)\b"
)
"Words that no subject, relation or value of one clause has in it."
_ENDS = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\bSt\.)(?<!\b[DM]r\.)(?<!\bMrs\.)\s+|\s*[;\n]\s*")


LONGEST = 300
"Characters of a sentence that is looked at."


def claim_of(sentence: str) -> Claim | None:
    """What one sentence claims, if the grammar has a line for it."""
    text, denied = split_denial(_bare(sentence))
    if len(text) > LONGEST:
        return None
    for form in FORMS:
        for pattern in form.says:
            found = _says(pattern, form.value).fullmatch(text)
            if found and _sound(found):
                return _claim(form, found, denied)
    return None


def claims_of(text: str) -> list[Claim]:
    """Everything that a text claims, sentence by sentence, in order."""
    parts = (part for one in sentences(text) for part in joined(one))
    return [claim for part in parts if (claim := claim_of(part))]


def question_of(text: str) -> tuple[str, str] | None:
    """Subject and relation that a question asks for, folded as in `Claim.key`."""
    asked = asked_of(text)
    return None if asked is None else (fold(asked[0]), fold(asked[1]))


def asked_of(text: str) -> tuple[str, str] | None:
    """Subject and relation that a question asks for, as they are written there."""
    asked = normalise(text).rstrip("?. ").rstrip()
    for form in FORMS:
        for pattern in form.asks:
            found = _asks(pattern).fullmatch(asked)
            if found:
                parts = found.groupdict()
                relation = form.relation.replace("{r}", parts.get("r") or "")
                return clean(parts["s"]), clean(relation)
    return None


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [part.strip() for part in _ENDS.split(text) if part.strip()]


def joined(sentence: str) -> list[str]:
    """The claims that an `and` joins in a sentence; the sentence, where it joins none."""
    ends = [0, *(found.end() for found in re.finditer(r",? and ", sentence)), len(sentence) + 5]
    parts = [sentence[a:b].removesuffix(" and ").rstrip(",") for a, b in pairwise(ends)]
    # Names have an `and` in them too: all parts are claims, or the sentence is one.
    return parts if len(parts) > 1 and all(map(claim_of, parts)) else [sentence]


def split_denial(text: str) -> tuple[str, str | None]:
    """A text without `, not Sydney` at its end, and what it denies there."""
    found = DENIAL.search(text)
    return (text[: found.start()].rstrip(), clean(found["x"])) if found else (text, None)


def clean(text: str) -> str:
    """A name without what surrounds it in a sentence: punctuation and quotes."""
    text = normalise(text).strip(" ,;:!\"“”«»'’‘*`")
    # A full stop ends a sentence, unless it ends an abbreviation: D.C., Jr.
    short = re.search(r"(?:\.\w|\b[A-Z]|\bJr|\bSr|\bInc|\bLtd)\.$", text)
    return text if short else text.rstrip(".")


def fold(text: str) -> str:
    """Text for comparing: no case, no article before it, no marks around it."""
    return re.sub(r"^(?:the|a|an) ", "", clean(text).casefold())


def _claim(form: Form, found: re.Match[str], denied: str | None) -> Claim:
    parts = found.groupdict()
    subject, value = clean(parts["s"]), clean(parts["v"])
    named = normalise(parts.get("r") or "")
    question = form.asks[0] if form.asks else ASKS[0]
    if question == ASKS[0] and PEOPLE.search(named):
        question = ASKS[1]
    # The article that begins the sentence does not begin the question; "The Hobbit" keeps its own.
    inside = subject if found.start("s") else re.sub(r"^The ", "the ", subject)
    question = question.replace("{s}", inside).replace("{r}", named)
    return Claim(subject, form.relation.replace("{r}", named), value, question, denied)


def _sound(found: re.Match[str]) -> bool:
    parts = found.groupdict()
    subject, relation, value = clean(parts["s"]), parts.get("r") or "", clean(parts["v"])
    if not subject or not value or PRONOUNS.match(subject):
        return False
    if SUBCLAUSE.search(value) or re.search(r"\bnot$", value):
        return False
    if re.match(r"(?:my|our|your|his|her|their|its|this|that) ", subject, re.IGNORECASE):
        return False
    if len(value) > 80 or len(value.split()) > 12:
        return False
    return not (SUBCLAUSE.search(subject) or SUBCLAUSE.search(relation))


def _bare(sentence: str) -> str:
    text = normalise(sentence).rstrip("! ")
    return clean(text) if text.endswith(".") else text


@cache
def _says(pattern: str, value: str | None) -> re.Pattern[str]:
    wanted = VALUE if value is None else f"(?P<v>{value})"
    text = pattern.replace("{s}", SUBJECT).replace("{r}", RELATION).replace("{v}", wanted)
    return re.compile(text, re.IGNORECASE)


@cache
def _asks(pattern: str) -> re.Pattern[str]:
    text = pattern.rstrip("? ")
    for mark, part in (("{s}", SUBJECT), ("{r}", RELATION)):
        text = text.replace(mark, part)
    return re.compile(text, re.IGNORECASE)
