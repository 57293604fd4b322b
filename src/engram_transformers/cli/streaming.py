"""Prints an answer while it is generated."""

from __future__ import annotations

import sys
from typing import Any

from engram_transformers.cli.output import visible
from engram_transformers.models.tokens import HostTokens

_HALF = "\ufffd"
"What the end of a text decodes to while a character is not complete."


class Stream:
    """A streamer for `generate`: prints the text that further tokens will not change."""

    def __init__(self, tokens: HostTokens) -> None:
        self.tokens = tokens
        self.ids: list[int] = []
        self.printed = 0
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        """Takes the prompt first, and then each new token."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.ids.extend(value.flatten().tolist())
        self._print(self.tokens.decode_answer(self.ids).rstrip(_HALF))

    def end(self) -> None:
        """The answer is whole."""
        self._print(self.tokens.decode_answer(self.ids))
        print(flush=True)

    def _print(self, text: str) -> None:
        sys.stdout.write(visible(text[self.printed :]))
        sys.stdout.flush()
        self.printed = max(self.printed, len(text))
