"""Every error this library raises on purpose: what was asked, what was found, what to do.

Each error has two parents, ours and the built-in one that a caller would expect, so that
``except LookupError`` keeps working in code that has never heard of this library.
"""

from typing import Any


class EngramError(Exception):
    """Parent of every error that this library raises on purpose."""


class BadInput(EngramError, ValueError):
    """What the caller passed cannot be used: an option, a number, a combination."""


class FactRefused(EngramError, ValueError):
    """A fact cannot be taught as it stands: empty, too long, not writable by the host."""


class FactFileError(EngramError, ValueError):
    """A file of facts cannot be read as one."""


class UnknownFact(EngramError, LookupError):
    """No fact in this memory answers to the id that was asked for."""


class HostNotFound(EngramError, LookupError):
    """No model answers to the name that was asked for."""


class HostMismatch(EngramError, ValueError):
    """A memory written for one host was opened with another."""


class LayoutMismatch(EngramError, ValueError):
    """Tensors that are looked up by address were addressed otherwise than they would be now."""


class PlaceNotFound(EngramError, LookupError):
    """The host has no module at the place that a memory wants to act on."""

    found: str | None = None
    "What the host lacks and why, without advice, where it has no such module at all."


class UnsupportedCall(EngramError, TypeError):
    """The host was called in a way in which a memory cannot be right."""


class UnknownMemory(EngramError, LookupError):
    """No kind of memory has the name that was asked for."""


class UnknownTask(EngramError, LookupError):
    """No evaluation task has the name that was asked for."""


class DataMissing(EngramError, OSError):
    """An evaluation set is not on this machine; the message says where to get it."""


class CannotForget(EngramError, TypeError):
    """A memory of this kind holds all its facts together and cannot take single ones out."""


class MemoryFull(EngramError, OverflowError):
    """A memory holds as many edits as it was made for."""


class TrainingDiverged(EngramError, ArithmeticError):
    """The loss of a training is no number any more; the last good tensors are back."""


class StoreError(EngramError, OSError):
    """A memory directory cannot be read or written."""


class StoreDamaged(StoreError):
    """A file of a memory directory is truncated, foreign or contradicts the others."""


class StoreTooNew(StoreError):
    """A memory directory was written by a newer format than this library knows."""


class StoreLocked(StoreError):
    """Another process is writing to the memory directory."""


class MissingExtra(EngramError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


class Interrupted(KeyboardInterrupt):
    """Teaching was interrupted; what the receipt names is stored, the rest is as it was."""

    def __init__(self, receipt: Any) -> None:
        super().__init__("interrupted; run it again to go on where it stopped")
        self.receipt = receipt
