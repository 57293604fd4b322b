"""From what a user says about an answer to an edit that is proposed, or to the reason why none is.

Nothing here writes anything. A proposal needs a claim that the grammar of `claims` understands, or
a bare value and the question that it answers, and a sign that it is meant to correct or to teach.
Doubt of any sort (a question, somebody else's words, a joke, a taste, a maybe) is no proposal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engram_transformers.corrections.claims import (
    Claim,
    asked_of,
    claim_of,
    clean,
    fold,
    joined,
    sentences,
    split_denial,
)
from engram_transformers.types import Fact

LONGEST = 2000
"Characters of feedback that are read."

_OPENING = (
    r"no(?=[\s]*[,.!:;–—-])|no(?= (?:it|the|that|this)\b)|nope|nah|nein|non|falsch|faux|falso|"
    r"actually|wrong|incorrect|false|not quite|not true|correction|"
    r"that(?:'s| is|’s| was) (?:not (?:right|true|correct|quite right)|wrong|incorrect|false)|"
    r"(?:this|it) is (?:wrong|incorrect|false|not (?:right|true|correct))|"
    r"you(?:'re| are|’re) (?:wrong|mistaken|incorrect)|you (?:got that|got it) wrong|"
    r"you made a (?:mistake|error)|"
    r"your (?:answer|reply) (?:is|was) (?:wrong|incorrect|false)|(?:that|this) is a mistake|"
    r"(?:das )?(?:ist falsch|stimmt nicht)|c['’]est faux|"
    r"in fact|as a matter of fact|on the contrary|de hecho|en fait|tatsächlich"
)
_TEACHING = (
    r"remember(?: this)?(?: that|:)|(?:please )?note(?: that|:)|for the record|fyi|"
    r"for your information|please (?:remember|learn|know)(?: that|:)?|update(?: on this)?:|"
    r"learn(?: that|:)"
)
_FILLING = r"sorry|but|well|hey|hm+|oh|ah|um|i['’]m afraid|please|look|and|so|just|guys?|dude"
CORRECTS = re.compile(rf"(?:{_OPENING})(?![\w'’])", re.IGNORECASE)
TEACHES = re.compile(rf"(?:{_TEACHING})", re.IGNORECASE)
FILLS = re.compile(rf"(?:{_FILLING})(?![\w'’])", re.IGNORECASE)
GAP = re.compile(r"[\s,.:;!–—-]+")
ANSWERS = re.compile(
    r"(?:(?:it|that|this|the (?:correct |right |real )?answer|he|she)"
    r"(?:'s|’s| is| was| should be| should have been| would be| must be)"
    r"(?: actually| really| in fact)?|you (?:meant|mean)|"
    r"(?:the )?correct(?: answer)?(?: is|:)|should be|should have been) (?P<v>.+)",
    re.IGNORECASE,
)
"A value for a question that was asked before."
CITED = re.compile(r"(?:according to|per) (?P<x>(?:[\w.']+ ){0,4}?[\w.']+),? (?=the |[A-Z])")

TAIL = re.compile(
    r",? (?:please|thanks|thank you|dude|mate|man|okay|ok|by the way|btw|of course|obviously|duh|"
    r"you \w+)[.! ]*$",
    re.IGNORECASE,
)
"What is said to the listener at the end of a sentence, and not of the subject."


@dataclass(frozen=True)
class ProposedEdit:
    """An edit that feedback asks for; nothing is written before somebody confirms it."""

    question: str
    answer: str
    "In the spelling of the feedback."
    subject: str | None
    relation: str | None
    confidence: float
    "From 0 to 1: how plain the feedback was; not how likely it is to be true."
    contradicts: str | None
    "What the feedback, or the answer before it, says instead."
    evidence: str
    "The sentence that it comes from."
    source: str | None = None
    "Where the feedback says that it knows this from."
    replaces: tuple[str, ...] = ()
    "Ids of taught facts with another answer to the same question."

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of question and answer."""
        text = f"{self.question}\n{self.answer}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]

    @property
    def fact(self) -> Fact:
        """The fact to teach."""
        return Fact(
            self.question,
            self.answer,
            subject=self.subject,
            relation=self.relation,
            source=self.source,
        )


@dataclass(frozen=True)
class Read:
    """What was made of feedback: proposals, or the reason why there are none."""

    proposals: tuple[ProposedEdit, ...]
    reason: str
    "Empty where there are proposals."


def _has(*patterns: str) -> Callable[[str], bool]:
    compiled = re.compile("|".join(patterns), re.IGNORECASE)
    return lambda text: compiled.search(text) is not None


def _broken(text: str) -> bool:
    return any((c < " " and c not in "\n\t\r") or "\ud800" <= c <= "\udfff" for c in text)


Reasons = dict[str, Callable[[str], bool]]

UNSAFE: Reasons = {
    "it tries to give orders to the model": _has(
        r"ignore (?:all |any |the |your )*(?:previous|prior|above|earlier)",
        r"disregard .{0,20}instruction",
        r"system prompt|<\|?[a-z_]+\|?>|\bjailbreak|\byou are now\b|developer mode",
    ),
    "it is about something that could hurt somebody": _has(
        r"\b(?:dos(?:e|age)|lethal|overdose|explosives?|bombs?|poison|suicide|antidote)\b",
        r"\b(?:napalm|sarin|meth|chemical weapon)\b",
    ),
    "it holds somebody's secrets": _has(
        r"\b(?:password|passcode|pin code|api key|secret key|private key|credit card|iban)\b",
        r"\b(?:ssn|social security number)\b|\b(?:\d[ -]?){13,16}\b|\bsk-\w{8,}",
    ),
    "it holds characters that no text has": _broken,
}
"Reasons for which feedback is not looked at any further."

DOUBTFUL: Reasons = {
    "it may not be meant as it is said": _has(
        r"/s\b|\blol\b|\bhaha|🙄|😂|\byeah,? right\b|\bas if\b|\bgenius\b|\bsure,? and\b",
        r"\band i(?:'m| am) (?:the|a)\b|\boh (?:really|great|wow)\b|\bwow,|\bgreat job\b",
        r"\bbrilliant\b|\bwhatever you say\b|\bjust kidding\b|\bpigs (?:can )?fly\b",
        r"\bof course,? and\b",
    ),
    "it says somebody else said so": _has(
        r"\b(?:said|says?|claims?|claimed|believes?|believed|thinks?|thought|told me)\b(?! you)",
        r"\b(?:argues?|wrote that|heard|rumou?rs?|apparently|allegedly|supposedly)\b",
    ),
    "it is not sure of it": _has(
        r"\b(?:maybe|perhaps|probably|possibly|might|may be|could be|not sure|i guess)\b",
        r"\b(?:i suppose|i think|i believe|i'm fairly|isn['’]t it|if i remember|iirc|afaik)\b",
        r"\b(?:i doubt|seems?|either|or something|or so|or maybe)\b",
    ),
    "it imagines something": _has(
        r"\b(?:if|suppose|imagine|pretend|let['’]s say|what if|hypothetically|would have been)\b",
        r"\bin (?:the|my|this) (?:movie|film|game|book|novel|story|show|series)\b|\bused to be\b",
    ),
    "it is a matter of taste": _has(
        r"\bi (?:really |also )?(?:like|love|hate|prefer|enjoy|dislike|want|wish|would rather)\b",
        r"\b(?:favou?rite|best|worst|better|nicer|nicest|prettiest|coolest|funniest|ugliest)\b",
        r"\bm(?:ore|ost) (?:beautiful|interesting|fun)\b|\bin my opinion\b|\bimo\b",
    ),
    "it is about the speaker": _has(r"\b(?:my|i['’]m|i am|i was|i live|our)\b(?! afraid)"),
    "it says that the answer was right": _has(
        r"\b(?:you (?:were|are)|you['’]re) (?:\w+ )?(?:right|correct)\b",
        r"\bthat(?:['’]s| is| was) (?:\w+ )?(?:right|correct|true)\b",
        r"^(?:yes|yep|yeah|exactly|correct|right|perfect|thanks|thank you)\b",
    ),
    "it holds only for the moment": _has(
        r"\b(?:today|tomorrow|yesterday|tonight|right now|at the moment|this (?:week|morning))\b"
    ),
}
"Reasons for which a sentence is no proposal, nor any beside it."

VAGUE = re.compile(
    r"(?:very|so|too|really|quite|always|never|still|also|just|not|now|about to|going|being|"
    r"something|somewhere|someone|another|other|different|else|wrong|right|correct|incorrect|false|"
    r"true|beautiful|great|nice|awful|terrible|boring|amazing|bad|good|big|small|bigger|smaller|"
    r"important|famous|popular|interesting|complicated|unknown|unclear|older|newer|pretty|ugly|"
    r"stupid|silly|weird|fine|obvious|none of|nothing|what|who|where|that|this|it|he|she|they|"
    r"there|a mess|a joke|better|worse|the same|more|less|nonsense|rubbish|a lie|lies|due|well|"
    r"only)\b",
    re.IGNORECASE,
)
"Beginnings of values that name nothing."
DESCRIBES = re.compile(r"[a-z]{3,}(?:ed|ing)\b")
"Values that say how something is, not what: `overrated`, `moved to May`."
PLAIN = re.compile(
    r"\b(?:colou?r|material|shape|status|state|language|flavou?r|sport|animal|food|gender|unit|"
    r"number of .*|painter|author|code ?name|name|type|kind|category|genre|format|phase)$",
    re.IGNORECASE,
)
"Relations whose values are ordinary words."
NAME = re.compile(
    r"(?:[A-Z0-9][^\s]*|of|the|and|de|da|di|du|la|le|van|von|der|den|y|el|al)"
    r"(?: (?:[A-Z0-9][^\s]*|of|the|and|de|da|di|du|la|le|van|von|der|den|y|el|al))*"
)
"A value that stands by itself: every word of it is a name's or a number's."
NO_VALUE = re.compile(
    r"\b(?:is|are|was|were|isn['’]t|wasn['’]t|do|don['’]t|please|try|again)\b", re.IGNORECASE
)


def read_feedback(text: str, *, question: str | None = None, said: str | None = None) -> Read:
    """The edits that feedback asks for.

    Args:
        question: what was asked before, so that "No, it's Canberra" has something to answer.
        said: what was answered.
    """
    reason = _refused(text)
    if reason:
        return Read((), reason)
    found: list[ProposedEdit] = []
    reasons: list[str] = []
    corrects = teaches = False
    for sentence in sentences(text):
        marks = _opened(sentence)
        corrects, teaches = corrects or marks.corrects, teaches or marks.teaches
        why = _doubtful(marks)
        for part in [] if why else joined(marks.rest):
            one = replace(marks, rest=part)
            proposal, why = _proposed(one, question, said, meant=corrects or teaches)
            found += [proposal] if proposal else []
        reasons += [why] if why else []
    return _agreed(found, reasons)


@dataclass(frozen=True)
class _Opened:
    """A sentence without the words that only say what it is for."""

    whole: str
    rest: str
    corrects: bool
    teaches: bool
    source: str | None


def _opened(sentence: str) -> _Opened:
    rest, corrects, teaches = sentence.strip(), False, False
    while True:
        rest = GAP.sub("", rest, count=1) if GAP.match(rest) else rest
        if found := CORRECTS.match(rest):
            corrects = True
        elif found := TEACHES.match(rest):
            teaches = True
        elif not (found := FILLS.match(rest)):
            break
        rest = rest[found.end() :]
    cited = CITED.match(rest)
    rest = TAIL.sub("", rest[cited.end() :] if cited else rest)
    return _Opened(sentence, rest, corrects, teaches, clean(cited["x"]) if cited else None)


def _refused(text: str) -> str | None:
    if not text.strip():
        return "it says nothing"
    if len(text) > LONGEST:
        return f"it is longer than {LONGEST} characters"
    return next((why for why, has in UNSAFE.items() if has(text)), None)


def _doubtful(opened: _Opened) -> str:
    """Why nothing in a sentence can be a proposal; empty where something may be."""
    if opened.whole.rstrip().endswith("?"):
        return "it asks rather than tells"
    if not re.search(r"\w", opened.rest):
        return "it does not say what is right"
    if re.search(r"[\"“«](?:[^\"”»]+ ){2,}", opened.rest):
        return "it quotes somebody"
    return next((why for why, has in DOUBTFUL.items() if has(opened.rest)), "")


def _proposed(
    opened: _Opened, question: str | None, said: str | None, *, meant: bool
) -> tuple[ProposedEdit | None, str]:
    """The edit that a clause asks for, or why it asks for none."""
    text = _named(opened.rest, question)
    claim = claim_of(text) or _answered(opened, question, meant=meant)
    if claim is None:
        return None, _not_understood(opened.rest)
    return _from_claim(claim, opened, question, said, meant=meant)


def _named(text: str, question: str | None) -> str:
    """A sentence about "it" as one about what the question before was about."""
    text = re.sub(r"^it (?:is|was) (.+?) (?:who|that) ", r"\1 ", text, flags=re.IGNORECASE)
    asked = asked_of(question) if question else None
    if asked is None:
        return text
    # A function, since the name may hold what looks like a reference to a group.
    text = re.sub(r"^(?:its|his|her|their) ", lambda _: f"{asked[0]}'s ", text, flags=re.I)
    return re.sub(r"^(?:it|he|she|they) ", lambda _: f"{asked[0]} ", text, flags=re.I)


def _from_claim(
    claim: Claim, opened: _Opened, question: str | None, said: str | None, *, meant: bool
) -> tuple[ProposedEdit | None, str]:
    if VAGUE.match(claim.value) or re.match(r"(?:not|nicht|pas|no)\b", claim.value, re.IGNORECASE):
        return None, "it does not say what is right"
    if DESCRIBES.match(claim.value) or _only_describes(claim, opened.whole):
        return None, "it does not say what is right"
    if re.search(r"\bor\b", claim.value):
        return None, "it says two different things are right"
    if claim.denied is not None and fold(claim.denied) == fold(claim.value):
        return None, "it says the same is right and wrong"
    if said is not None and _holds(said, claim.value) and not _holds(claim.value, said):
        return None, "the answer says so already"
    contradicts = claim.denied or _said_instead(claim, question, said)
    if not (meant or contradicts):
        return None, "it states something but corrects nothing"
    proposal = ProposedEdit(
        question=claim.question,
        answer=claim.value,
        subject=claim.subject or None,
        relation=claim.relation or None,
        confidence=_confidence(claim, opened, question, said, meant=meant),
        contradicts=contradicts,
        evidence=opened.whole,
        source=opened.source,
    )
    return proposal, ""


def _only_describes(claim: Claim, whole: str) -> bool:
    """Whether the value may be how something is (`cold`), and not what it is."""
    single = re.fullmatch(r"[^\W\d_]+", claim.value) is not None and claim.value.islower()
    # Somebody who writes no capitals at all writes names without them too.
    careful = not whole.islower()
    return single and careful and claim.denied is None and not PLAIN.search(claim.relation)


def _answered(opened: _Opened, question: str | None, *, meant: bool) -> Claim | None:
    """A bare value as the answer to the question before: "it's Canberra", "Rome, not Milan"."""
    if question is None:
        return None
    rest, denied = split_denial(clean(opened.rest))
    found = ANSWERS.fullmatch(rest)
    value = clean(found["v"]) if found else clean(rest)
    # A capital at the beginning of a sentence says nothing: "No. Shorter." names nobody.
    begins = opened.rest == opened.whole.strip() and not re.match(r"\d", value)
    bare = denied is not None or (meant and not begins)
    if not (found or (bare and NAME.fullmatch(value))) or len(value.split()) > 6:
        return None
    return None if NO_VALUE.search(value) else Claim("", "", value, question, denied)


def _said_instead(claim: Claim, question: str | None, said: str | None) -> str | None:
    """The answer before, where it was an answer to the same thing."""
    if said is None or _holds(said, claim.value):
        return None
    before = claim_of(said)
    if before is not None and before.key == claim.key:
        return before.value
    about = question is not None and (claim.question == question or _same(claim, question))
    return clean(said) if about and len(said) <= 80 else None


def _same(claim: Claim, question: str) -> bool:
    return _holds(question, claim.subject) and _holds(question, claim.relation)


def _confidence(
    claim: Claim, opened: _Opened, question: str | None, said: str | None, *, meant: bool
) -> float:
    """Half for a claim that is understood, and a share for each sign that it is meant."""
    points = 0.5 + 0.2 * meant + 0.1 * (claim.denied is not None) + 0.05 * bool(opened.source)
    points += 0.1 * (claim.denied is not None and said is not None and _holds(said, claim.denied))
    points += 0.05 * (question is not None and (not claim.subject or _same(claim, question)))
    return round(min(points, 0.95), 2)


def _holds(text: str, part: str) -> bool:
    """Whether a text has a part in it, as whole words, whatever their case."""
    return re.search(rf"(?<!\w){re.escape(fold(part))}(?!\w)", text.casefold()) is not None


def _not_understood(text: str) -> str:
    if re.search(r"\b(?:not|n['’]t|nicht|pas)\b", text):
        return "it does not say what is right"
    if re.match(r"(?:it|he|she|they|this|that|its|his|her|their)\b", text, re.IGNORECASE):
        return "it does not say what it is about"
    return "it is not understood"


def _agreed(found: Sequence[ProposedEdit], reasons: Sequence[str]) -> Read:
    """Proposals that do not contradict each other; otherwise the reason for none."""
    distinct = {one.id: one for one in found}.values()
    answers: dict[str, set[str]] = {}
    for one in distinct:
        answers.setdefault(fold(one.question), set()).add(fold(one.answer))
    if any(len(each) > 1 for each in answers.values()):
        return Read((), "it says two different things are right")
    # A joke, a taste or a doubt beside a claim leaves the claim in doubt as well.
    doubts = [why for why in reasons if why in DOUBTFUL]
    if doubts or not distinct:
        return Read((), next(iter(doubts or reasons), "it says nothing"))
    return Read(tuple(distinct), "")
