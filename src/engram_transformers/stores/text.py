"""Text as it is compared and as it is stored."""

from __future__ import annotations

import hashlib
import unicodedata

from engram_transformers.errors import FactRefused
from engram_transformers.types import Fact


def normalise(text: str) -> str:
    """Composed (NFC), with every run of whitespace as one space and none at the ends."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def pair_of(fact: Fact) -> tuple[str, str] | None:
    """Normalised subject and relation; None unless the fact has both."""
    if fact.subject is None or fact.relation is None:
        return None
    return normalise(fact.subject), normalise(fact.relation)


def key_of(*parts: str) -> int:
    """A signed 64-bit number to look text up by; what it finds still has to be compared."""
    # The lengths keep the parts apart: ("a", "b c") is not ("a b", "c").
    text = "".join(f"{len(part)} {part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def printable(text: str | None) -> str | None:
    """Text that SQLite can hold: lone surrogates, as in odd file names, are written `\\udc80`."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def refuse_surrogates(fact: Fact) -> None:
    """`FactRefused` for a fact that is no Unicode text: no tokenizer or file could hold it."""
    for name, value in fact.as_dict().items():
        for text in [value] if isinstance(value, str) else value:
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise FactRefused(
                    f"the {name} {printable(text)!r} contains half a character "
                    f"(U+{ord(text[error.start]):04X}) and is no Unicode text; replace it"
                ) from error
