"""The exact-match set of the third seed: `CAPITAL:France` and the like, and random keys.

Made anew, the same every time, and without any data file. 165 keys have real values, in seven
categories; the values of the `SYN` keys are drawn from their hash. Every tenth key is first
taught with the value of another key of its category and later with its own: the later value has
to win, which the group `conflicting` asks. Keys of all categories that are not taught are the
silent group `unseen`.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

CONFLICTING = 10
UNSEEN = 100
"Random keys that are asked and never taught."

REAL = {
    "CAPITAL": """
        France=Paris; Germany=Berlin; Italy=Rome; Spain=Madrid; Japan=Tokyo; China=Beijing;
        India=New Delhi; Brazil=Brasilia; Canada=Ottawa; Australia=Canberra; Mexico=Mexico City;
        Argentina=Buenos Aires; Russia=Moscow; Egypt=Cairo; Turkey=Ankara; Greece=Athens;
        Sweden=Stockholm; Norway=Oslo; Denmark=Copenhagen; Finland=Helsinki; Poland=Warsaw;
        Netherlands=Amsterdam; Belgium=Brussels; Thailand=Bangkok; Vietnam=Hanoi;
        Indonesia=Jakarta; South Korea=Seoul; Pakistan=Islamabad; Iran=Tehran; Iraq=Baghdad""",
    "ELEMENT_NAME": """
        H=Hydrogen; He=Helium; Li=Lithium; Be=Beryllium; B=Boron; C=Carbon; N=Nitrogen; O=Oxygen;
        F=Fluorine; Ne=Neon; Na=Sodium; Mg=Magnesium; Al=Aluminum; Si=Silicon; P=Phosphorus;
        S=Sulfur; Cl=Chlorine; Ar=Argon; K=Potassium; Ca=Calcium; Fe=Iron; Cu=Copper; Zn=Zinc;
        Ag=Silver; Au=Gold; Pb=Lead; U=Uranium""",
    "ELEMENT_NUM": """
        H=1; He=2; Li=3; Be=4; B=5; C=6; N=7; O=8; F=9; Ne=10; Na=11; Mg=12; Al=13; Si=14; P=15;
        S=16; Cl=17; Ar=18; K=19; Ca=20; Fe=26; Cu=29; Zn=30; Ag=47; Au=79; Pb=82; U=92""",
    "PORT": """
        HTTP=80; HTTPS=443; SSH=22; FTP=21; SMTP=25; DNS=53; MySQL=3306; PostgreSQL=5432;
        Redis=6379; MongoDB=27017; Elasticsearch=9200; RabbitMQ=5672; Memcached=11211;
        Cassandra=9042; Neo4j=7474; InfluxDB=8086; Prometheus=9090; Grafana=3000; Jenkins=8080;
        Docker=2375""",
    "HTTP": """
        200=OK; 201=Created; 204=No Content; 301=Moved Permanently; 302=Found; 304=Not Modified;
        400=Bad Request; 401=Unauthorized; 403=Forbidden; 404=Not Found; 405=Method Not Allowed;
        408=Request Timeout; 429=Too Many Requests; 500=Internal Server Error; 502=Bad Gateway;
        503=Service Unavailable; 504=Gateway Timeout""",
    "CONVERT": """
        1 kilometer=1000 meters; 1 mile=1.609 kilometers; 1 kilogram=1000 grams;
        1 pound=0.453 kilograms; 1 liter=1000 milliliters; 1 gallon=3.785 liters;
        1 hour=3600 seconds; 1 day=86400 seconds; 1 week=604800 seconds; 1 byte=8 bits;
        1 kilobyte=1024 bytes; 1 megabyte=1024 kilobytes; 1 gigabyte=1024 megabytes;
        1 terabyte=1024 gigabytes""",
    "ACRONYM": """
        API=Application Programming Interface; CPU=Central Processing Unit;
        GPU=Graphics Processing Unit; RAM=Random Access Memory; ROM=Read Only Memory;
        SSD=Solid State Drive; HDD=Hard Disk Drive; LAN=Local Area Network; WAN=Wide Area Network;
        VPN=Virtual Private Network; DNS=Domain Name System; HTTP=HyperText Transfer Protocol;
        HTTPS=HyperText Transfer Protocol Secure; FTP=File Transfer Protocol; SSH=Secure Shell;
        TCP=Transmission Control Protocol; UDP=User Datagram Protocol; IP=Internet Protocol;
        URL=Uniform Resource Locator; HTML=HyperText Markup Language; CSS=Cascading Style Sheets;
        XML=eXtensible Markup Language; JSON=JavaScript Object Notation;
        SQL=Structured Query Language; AI=Artificial Intelligence; ML=Machine Learning;
        NLP=Natural Language Processing; CNN=Convolutional Neural Network;
        RNN=Recurrent Neural Network; GAN=Generative Adversarial Network""",
}
STRANGERS = {
    "CAPITAL": "Portugal; Austria; Kenya; Peru; Nepal; Ghana",
    "ELEMENT_NAME": "Ti; Cr; Mn; Ni; Hg; Pt",
    "ELEMENT_NUM": "Ti; Cr; Mn; Ni; Hg; Pt",
    "PORT": "LDAP; Telnet; Kafka; Consul; NTP; IMAP",
    "HTTP": "202; 303; 410; 418; 451; 501",
    "CONVERT": "1 yard; 1 ounce; 1 acre; 1 minute; 1 knot; 1 pint",
    "ACRONYM": "USB; BIOS; LED; PDF; RAID; SVM",
}
"Keys that exist and are not taught."
WORDINGS = {
    "CAPITAL": "What is the capital of {key}?",
    "ELEMENT_NAME": "Which chemical element has the symbol {key}?",
    "ELEMENT_NUM": "What is the atomic number of the element {key}?",
    "PORT": "Which port does {key} use by default?",
    "HTTP": "What does the HTTP status code {key} mean?",
    "CONVERT": "How many {unit} are in {key}?",
    "ACRONYM": "What does the acronym {key} stand for?",
    "SYN": "Which value belongs to the key {key}?",
}
GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


def lookup(random_keys: int = 500) -> Task:
    """165 real keys and so many random ones, and keys of both kinds that are not taught."""
    facts = [*_real(), *(_random(number) for number in range(random_keys))]
    earlier = _earlier(facts)
    later = {fact.prompt: fact for fact in facts}
    return Task(
        "lookup",
        "chat",
        (*earlier, *facts),
        asked={
            "paraphrase": tuple(Question.about(fact, _in_words(fact)) for fact in facts),
            "conflicting": tuple(
                Question(
                    old.prompt, (later[old.prompt].answer,), later[old.prompt].id, needs=(old.id,)
                )
                for old in earlier
            ),
        },
        silent={"unseen": tuple(_unseen(random_keys))},
        categories={fact.id: fact.relation or "" for fact in (*earlier, *facts)},
    ).without_clashes()


def _real() -> list[Fact]:
    return [
        _fact(category, *pair.strip().split("="))
        for category, pairs in REAL.items()
        for pair in pairs.split(";")
    ]


def _random(number: int) -> Fact:
    """A key with a value of one of three shapes, drawn from the key's hash."""
    key = f"SYN_{number:05d}"
    drawn = int.from_bytes(hashlib.sha256(key.encode()).digest())
    shape, drawn = drawn % 3, drawn // 3
    if shape == 0:
        value = str(1 + drawn % 99_999)
    elif shape == 1:
        value = f"{GREEK[drawn % len(GREEK)]}_{1 + drawn // len(GREEK) % 999}"
    else:
        value = f"0x{drawn % 0x1000000:06X}"
    return _fact("SYN", key, value)


def _fact(category: str, key: str, value: str) -> Fact:
    return Fact(f"{category}:{key}", value, subject=key, relation=category)


def _earlier(facts: list[Fact]) -> list[Fact]:
    """For every tenth key, the fact that is taught before its own and has to give way."""
    neighbours = [
        (fact, other)
        for fact, other in pairwise(facts)
        if fact.relation == other.relation and fact.answer != other.answer
    ]
    return [
        _fact(str(fact.relation), str(fact.subject), other.answer)
        for fact, other in neighbours[::CONFLICTING]
    ]


def _in_words(fact: Fact) -> str:
    unit = fact.answer.rpartition(" ")[2]
    return WORDINGS[str(fact.relation)].format(key=fact.subject, unit=unit)


def _unseen(taught: int) -> list[str]:
    real = [f"{kind}:{key.strip()}" for kind, keys in STRANGERS.items() for key in keys.split(";")]
    return [*real, *(_random(number).prompt for number in range(taught, taught + UNSEEN))]
