"""Tokens that differ in case, accents or white space only are one token to a hash.

The map is that of DeepSeek's `CompressedTokenizer`, step by step: an address depends on every bit
of it, since its size bounds the multipliers of the hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, normalizers

_SPACE = "\ue000"
"Stands for a lone space while the text around it is stripped."
_BROKEN = "\ufffd"


@dataclass(frozen=True, eq=False)
class Compression:
    """Which token ids are one and the same to a hash."""

    map: NDArray[np.int64]
    "(tokens of the tokenizer,): the compressed id of each token."
    size: int
    "How many compressed ids there are."

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Compressed ids; those that the tokenizer does not know share one more id.

        A host may have more rows in its embedding than its tokenizer has tokens.
        """
        if not len(ids) or (ids.min() >= 0 and ids.max() < len(self.map)):
            return self.map[ids]
        known = (ids >= 0) & (ids < len(self.map))
        return np.where(known, self.map[np.where(known, ids, 0)], self.size)


def compression(tokenizer: Any) -> Compression:
    """The compression of a tokenizer's ids; the same tokenizer gives the same map every time."""
    normalise = _normaliser().normalize_str
    ids: dict[str, int] = {}
    count = len(tokenizer)
    texts = _texts(tokenizer, count)
    found = np.empty(count, np.int64)
    for token, text in enumerate(texts):
        # A token that is a part of a character has no text of its own to compare.
        key = tokenizer.convert_ids_to_tokens(token) if _BROKEN in text else normalise(text) or text
        found[token] = ids.setdefault(key, len(ids))
    return Compression(found, len(ids))


def _texts(tokenizer: Any, count: int) -> list[str]:
    below = getattr(tokenizer, "backend_tokenizer", None)
    if below is None or getattr(tokenizer, "clean_up_tokenization_spaces", False):
        return [tokenizer.decode([i], skip_special_tokens=False) for i in range(count)]
    # What `decode` does for such a tokenizer, for all tokens at once.
    texts: list[str] = below.decode_batch([[i] for i in range(count)], skip_special_tokens=False)
    return texts


@cache
def _normaliser() -> Any:
    steps = normalizers
    return steps.Sequence([
        steps.NFKC(),
        steps.NFD(),
        steps.StripAccents(),
        steps.Lowercase(),
        steps.Replace(Regex(r"[ \t\r\n]+"), " "),
        steps.Replace(Regex(r"^ $"), _SPACE),
        steps.Strip(),
        steps.Replace(_SPACE, " "),
    ])  # fmt: skip
