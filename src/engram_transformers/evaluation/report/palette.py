"""One colour and one marker a memory, the same in every plot and table.

The hues are those of Okabe and Ito (2008), which people with any kind of colour blindness can
tell apart, darkened for light paper and lightened for dark. Markers repeat the distinction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engram_transformers.evaluation.report.sheet import BARE, ORACLE


@dataclass(frozen=True)
class Colour:
    """A colour on light and on dark paper."""

    light: str
    dark: str
    marker: str = "o"


BLUE = "#0069a8"
"Of pictures with one colour, on light paper."
INK = Colour("#1f2329", "#e8eaed")
MUTED = Colour("#5b636e", "#a3abb5")
RULE = Colour("#d6dadf", "#3a4048")
PAPER = Colour("#fffffe", "#16191d")

_KNOWN = {
    "lookup": Colour(BLUE, "#4fb0ee", "o"),
    "text/retrieval": Colour("#cf5300", "#ff8a47", "s"),
    "text/examples": Colour("#a07800", "#e6c04a", "^"),
    "lora": Colour("#00815d", "#2fc597", "D"),
    "fine_tune": Colour("#b4467f", "#ee93bf", "v"),
    "bottleneck": Colour("#2e93c4", "#9bd8f7", "P"),
    "bias": Colour("#6f51b5", "#b59cf0", "X"),
    ORACLE: Colour("#3d4349", "#c9ced4", "*"),
    BARE: Colour("#6a727c", "#98a1ac", "|"),
}
_FURTHER = (
    Colour("#7a4b1e", "#d09a66", "<"),
    Colour("#5c7a00", "#aecb3e", ">"),
    Colour("#a3262f", "#ff8b8f", "h"),
    Colour("#00767a", "#43cdd1", "p"),
    Colour("#8a2da0", "#dc8ff0", "d"),
)
_CONTROL = (Colour("#8a919a", "#7d858f", "o"), Colour("#8b929b", "#7e8690", "s"))


def palette(labels: Sequence[str], controls: Sequence[str]) -> dict[str, Colour]:
    """The colour of each label; controls are grey, unknown memories share what is left."""
    unknown = sorted(label for label in labels if label not in _KNOWN and label not in controls)
    return {label: _colour(label, unknown, controls) for label in labels}


def _colour(label: str, unknown: Sequence[str], controls: Sequence[str]) -> Colour:
    if label in controls:
        return _CONTROL[controls.index(label) % len(_CONTROL)]
    return _KNOWN.get(label) or _FURTHER[unknown.index(label) % len(_FURTHER)]
