"""What takes one write back, and why it sometimes cannot be."""

from __future__ import annotations

from engram_transformers.errors import BadInput
from engram_transformers.stores.ledger import Ledger
from engram_transformers.stores.records import Inverse, Row
from engram_transformers.stores.tensors import unpack
from engram_transformers.stores.text import pair_of


def inverse(ledger: Ledger, write: int | None = None) -> Inverse:
    """What takes back `write`, or the last one that teaches or forgets and is in effect.

    `BadInput` if there is none, or if later writes changed the same facts: undo those first.
    """
    with ledger.reading():
        number = _target(ledger, write)
        added = ledger.rows("added = ?", number)
        removed = ledger.rows("removed = ?", number)
        _check_untouched(ledger, number, added)
        _check_free(ledger, number, removed, leaving={row.id for row in added})
        deltas = ledger.packed([row.row for row in removed])
    add = tuple((row.fact, unpack(deltas[row.row])) for row in removed)
    return Inverse(number, add, tuple(row.id for row in added))


def _target(ledger: Ledger, write: int | None) -> int:
    gone = ledger.undone()
    if write is None:
        write = _last(ledger, gone)
    elif ledger.stamp(write) is None:
        raise BadInput(f"there is no write {write}; the last one is {ledger.head().number}")
    elif write in gone:
        raise BadInput(f"write {write} is already undone")
    return write


def _last(ledger: Ledger, gone: set[int]) -> int:
    with ledger.reading() as db:
        found = db.execute("SELECT number FROM writes WHERE act != 'undo' ORDER BY number DESC")
        for (number,) in found:
            if number not in gone:
                return int(number)
    raise BadInput("there is nothing to undo: no write is in effect")


def _check_untouched(ledger: Ledger, number: int, added: list[Row]) -> None:
    """Everything that the write stored must still be there, unchanged."""
    active = ledger.active(row.id for row in added)
    # A fact that was forgotten and brought back has another row with the same content.
    moved = [row for row in added if row.id in active and active[row.id].row != row.row]
    deltas = ledger.packed([each.row for row in moved for each in (row, active[row.id])])
    changed = {
        row.id
        for row in moved
        if row.fact != active[row.id].fact or deltas[row.row] != deltas[active[row.id].row]
    }
    for row in added:
        if row.id not in active or row.id in changed:
            raise _touched(ledger, number, row.id)


def _check_free(ledger: Ledger, number: int, removed: list[Row], *, leaving: set[str]) -> None:
    """What comes back must not meet an answer to its question that came later."""
    prompts = ledger.at_prompts(row.fact.prompt for row in removed)
    pairs = ledger.at_pairs(pair for row in removed if (pair := pair_of(row.fact)))
    for row in removed:
        met = prompts.get(row.fact.prompt, []) + pairs.get(pair_of(row.fact) or ("", ""), [])
        for other in met:
            known = other.id != row.id and _was_there(ledger, number, other.id)
            if other.id not in leaving and not known:
                raise _touched(ledger, number, other.id)


def _was_there(ledger: Ledger, number: int, id: str) -> bool:
    """Whether the fact was active just before the write."""
    before = "id = ? AND added < ? AND (removed IS NULL OR removed >= ?)"
    return bool(ledger.count(before, id, number, number))


def _touched(ledger: Ledger, number: int, id: str) -> BadInput:
    last = max(max(row.added, row.removed or 0) for row in ledger.rows("id = ?", id))
    return BadInput(
        f"write {number} cannot be undone: write {last} changed fact {id} later; undo that first"
    )
