"""Labelled prompts for the learned gate: look-ups, which ask for one stored value, and all others.

Made from the templates and words below, the same every time. The held-out prompts share neither a
kind (what is asked for, and the key's prefix) nor a wording with those for training, so that a gate
that only remembers prefixes scores badly on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Kinds = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"Kind: templates, and what goes into them."
USES = 3
"Templates that each word goes into."


@dataclass(frozen=True)
class Labelled:
    """A prompt, and whether it is a look-up."""

    text: str
    lookup: bool
    kind: str


def training_prompts() -> list[Labelled]:
    """Prompts to train and calibrate a gate with."""
    return [*_made(LOOKUPS, lookup=True), *_made(OTHERS, lookup=False)]


def held_out_prompts() -> list[Labelled]:
    """Prompts to score a gate with: other kinds in other words."""
    return [*_made(HELD_OUT_LOOKUPS, lookup=True), *_made(HELD_OUT_OTHERS, lookup=False)]


def _made(kinds: Kinds, *, lookup: bool) -> Iterator[Labelled]:
    """Each word in some templates of its kind, in turn."""
    for kind, (templates, words) in kinds.items():
        for i, word in enumerate(words):
            for j in range(min(USES, len(templates))):
                text = templates[(i + j) % len(templates)].format(word)
                yield Labelled(text, lookup, kind)


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(";")]


_COUNTRIES = _list("France; Peru; Kenya; Norway; Japan; Chile; Nepal; Ghana; Austria; Cuba")
_PLACES = _list("Hungary; Brazil; Iceland; Vietnam; Turkey; Mexico; Poland; Egypt; Sweden; India")
_TOPICS = _list(
    "a lighthouse in winter; my grandmother's kitchen; the last train home; a lost umbrella; "
    "learning to swim; two rival bakers; an honest thief; the smell of rain; a garden on a roof; "
    "moving to another town"
)
_SUBJECTS = _list(
    "photosynthesis; compound interest; how vaccines work; recursion; plate tectonics; "
    "the French Revolution; how a fridge cools; supply and demand; black holes; natural selection"
)

LOOKUPS: Kinds = {
    "acronym": (
        ["ACRONYM:{}", "What does {} stand for?", "ACRONYM: {}", "Expand the abbreviation {}."],
        _list("GPU; API; DNS; RAM; HTML; VPN; SQL; NATO; LED; USB; PDF; ATM"),
    ),
    "port": (
        ["PORT:{}", "Which port does {} use by default?", "{} default port?", "PORT: {}"],
        _list("SSH; Redis; MySQL; FTP; SMTP; HTTPS; MongoDB; LDAP; Kafka; NTP"),
    ),
    "capital": (
        ["CAPITAL:{}", "What is the capital of {}?", "The capital of {} is", "capital of {}"],
        _COUNTRIES,
    ),
    "element": (
        ["ELEMENT:{}", "Which element has the symbol {}?", "ELEMENT_NUM:{}", "atomic number of {}"],
        _list("Fe; Au; Ne; Cu; Na; Pb; Sn; He; Zn; Ag"),
    ),
    "status": (
        ["HTTP:{}", "What does HTTP status {} mean?", "status code {}"],
        _list("404; 200; 503; 301; 418; 401; 204; 429; 500; 304"),
    ),
    "convert": (
        ["CONVERT:1 {}", "How many metres are in one {}?", "CONVERT: 1 {} to metres"],
        _list("mile; yard; foot; league; furlong; inch; fathom; cable; rod; chain"),
    ),
    "record": (
        ["LOOKUP:{}", "What is stored under {}?", "SYN:{}", "Look up {}."],
        _list(
            "SYN_00271; item_4711; KEY_99; row_18; A-2093; node_7; SYN_01404; cfg_33; rec_5; X-81"
        ),
    ),
    "entity": (
        ["[Q{}] place of birth", "[Q{}] What is the date of death?", "[Q{}] occupation"],
        _list("937; 42; 7186; 1035; 762; 9036; 255; 1339; 7251; 6722"),
    ),
    "airport": (
        ["IATA:{}", "Which airport has the code {}?", "airport code {}"],
        _list("LHR; JFK; CDG; NRT; SYD; GRU; AMS; FRA; OSL; DXB"),
    ),
    "author": (
        ["AUTHOR:{}", "Who wrote {}?", "author of {}"],
        _list(
            "Moby-Dick; Middlemarch; Dracula; Faust; Ulysses; Emma; Walden; Candide; Hamlet; Dune"
        ),
    ),
    "founded": (
        ["FOUNDED:{}", "In which year was {} founded?", "When was {} established?"],
        _list("Nokia; Fiat; Siemens; Lego; Bayer; Nestlé; Toyota; Philips; Boeing; Rolex"),
    ),
}

OTHERS: Kinds = {
    "write": (
        ["Write a short poem about {}.", "Tell me a story about {}.", "Write a song about {}."],
        _TOPICS,
    ),
    "explain": (
        [
            "Explain {} to a ten-year-old.",
            "Can you describe {} in simple terms?",
            "Give me an overview of {}.",
        ],
        _SUBJECTS,
    ),
    "sum": (
        ["What is {}?", "Calculate {}.", "Work out {} step by step."],
        _list("2+2; 17 + 25; 9 * 13; 144 / 12; 81 - 46; 3 * (4 + 5); 15% of 80; 7 squared; 1000-1"),
    ),
    "code": (
        [
            "Write a Python function that {}.",
            "In JavaScript, how would you write code that {}?",
            "Write a unit test for a function that {}.",
        ],
        _list(
            "reverses a string; merges two sorted lists; counts words; parses a date; "
            "finds primes; removes duplicates; flattens a list; checks a password; sorts a table; "
            "reads a file"
        ),
    ),
    "advice": (
        [
            "What should I do when {}?",
            "I need some advice: {}.",
            "Do you think it is normal that {}?",
        ],
        _list(
            "my neighbour is noisy; I cannot sleep; my friend forgot my birthday; I hate my job; "
            "my cat ignores me; I am late every day; my plants keep dying; I feel lonely; "
            "my boss shouts; I spend too much"
        ),
    ),
    "chat": (
        ["{}", "Hi! {}", "{} Thanks in advance!"],
        _list(
            "How are you today?; Let us talk about films.; Tell me a joke.; Can you help me?; "
            "What shall we cook tonight?; I am bored.; Good morning!; Do you like music?; "
            "That was not what I meant.; Please try again."
        ),
    ),
    "given": (
        [
            "Summarise this: {}",
            "Translate into French: {}",
            "Rewrite more politely: {}",
        ],
        _list(
            "The meeting is moved to Friday because the room is taken.; Send me the report now.; "
            "The CODE: section of the form must be filled in by the patient.; "
            "We regret that your order 4711 is late.; The dog slept while it rained all day.; "
            "Our server on port 8443 was down twice last week.; Nobody told us about the change.; "
            "You have to pay before you leave.; The capital of the firm was raised last year.; "
            "HTTP: a love story, by an engineer."
        ),
    ),
    "puzzle": (
        [
            "If {}, how many are left?",
            "Solve the riddle: {}. What follows?",
            "Suppose {}. What happens next?",
        ],
        _list(
            "Tom has 3 apples and eats one; five birds sit on a wire and two fly off; "
            "a train leaves at noon and another at one; all cats are grey and Tom is a cat; "
            "ten people share four cakes; a bottle holds nine cups and I drink two; "
            "Ann is older than Bob and Bob than Cy; it rains every second day"
        ),
    ),
    "prose": (
        ["{}", "Continue: {}", "What comes after this? {}"],
        _list(
            "The old man walked down to the harbour and; It was late when she opened the door; "
            "Once upon a time there was a miller who; On the whole, the results suggest that; "
            "We had been driving for hours before; He never spoke of the war, but; "
            "In this chapter we shall look at; The committee met on Tuesday and"
        ),
    ),
    "howto": (
        ["How do I {}?", "What is the best way to {}?", "Teach me to {}."],
        _list(
            "bake bread; write a good cover letter; stay calm in traffic; learn to draw; "
            "organise a party; paint a fence; train a puppy; prepare for an interview; "
            "make new friends; read faster"
        ),
    ),
}

HELD_OUT_LOOKUPS: Kinds = {
    "currency": (
        ["CURRENCY:{}", "Name the currency of {}.", "What money do they pay with in {}?"],
        _PLACES,
    ),
    "mime": (
        ["MIME:.{}", "Tell me the media type of .{} files.", "content type for {}"],
        _list("png; json; css; mp3; zip; svg; csv; wasm; avif; epub"),
    ),
    "dialling": (
        ["DIAL:{}", "Country calling code, {}?", "What prefix do I dial for {}?"],
        _PLACES,
    ),
    "preference": (
        ["[user_{}] favourite editor", "[user_{}] Which theme is preferred?", "[user_{}] language"],
        _list("42; 7; 1309; 88; 561; 3; 77; 9001; 12; 640"),
    ),
    "painter": (
        ["PAINTER:{}", "{} was painted by whom?", "Name the painter of {}."],
        _list("Guernica; The Night Watch; The Scream; Nighthawks; Las Meninas; The Kiss; Olympia"),
    ),
    "article": (
        ["SKU:{}", "Price of article {}?", "How much is item number {}?"],
        _list("20-117; 88-204; 5531; B77; 10-003; 6420; ZX-9; 41-41; 7008; Q12"),
    ),
    "offset": (
        ["TZ:{}", "Give me the UTC offset of {}.", "time zone, {}"],
        _list("Oslo; Lima; Tokyo; Cairo; Denver; Delhi; Perth; Accra; Quito; Hanoi"),
    ),
}

HELD_OUT_OTHERS: Kinds = {
    "plan": (
        ["Plan a weekend for {}.", "Draft an itinerary for {}.", "Suggest activities for {}."],
        _list(
            "a family with toddlers; two hikers in autumn; a rainy city; a team of ten; "
            "someone who loves trains; retired teachers; a first date; a school class"
        ),
    ),
    "compare": (
        ["Compare {}.", "Which do you prefer, and why: {}?", "Discuss the merits of {}."],
        _list(
            "tea and coffee; cats and dogs; novels and films; city and country life; "
            "working alone and in a team; summer and winter; trains and planes"
        ),
    ),
    "why": (
        ["Why do {}?", "What makes people think that {}?", "Argue against the claim that {}."],
        _list(
            "leaves fall in autumn; birds sing at dawn; prices rise; we dream; cities grow; "
            "friends drift apart; old songs make us sad; children ask so many questions"
        ),
    ),
    "play": (
        [
            "Pretend to be {} and greet me.",
            "Write a dialogue with {}.",
            "Imagine you are {}. What annoys you?",
        ],
        _list(
            "a tired pirate; a polite robot; a detective; a talking oak; an impatient judge; "
            "a ghost who is afraid of people; a proud chef; a king without a country"
        ),
    ),
    "repair": (
        [
            "My program fails: {}. What could be wrong?",
            "Proofread the following. {}",
            "Improve this sentence: {}",
        ],
        _list(
            "it prints every line twice; the loop never ends; their going too the shop; "
            "me and him was late; the list is empty although I filled it; it works on my machine; "
            "I could of done it better; the numbers are off by one"
        ),
    ),
    "mention": (
        [
            "I always forget things like {}; how do people remember them?",
            "Make up a funny meaning for {}.",
            "Let us invent a board game around {}.",
        ],
        _list(
            "port numbers; the abbreviation GPU; the capital of France; HTTP:404; atomic numbers; "
            "airport codes; time zones; ACRONYM:API"
        ),
    ),
}
