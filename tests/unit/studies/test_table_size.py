"""Times over sizes: everything is timed in every round. What the times are is for benchmarks."""

from __future__ import annotations

import pytest

from engram_transformers.errors import BadInput
from engram_transformers.studies.study import Done
from engram_transformers.studies.table_size import STUDY, Options, conclude, measure, plan

TINY = Options(
    rows=(64, 256), lengths=(4, 9), heads=1, width=4, hidden=32, blocks=2, vocab=64, chunk=8,
    written=2, fixed_length=5, fixed_rows=100, rounds=3, runs=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def done() -> list[Done]:
    told: list[int] = []
    units = plan(TINY)
    found = [Done(u, measure(u, lambda *a: told.append(a[1])), 0.1, {}) for u in units]
    assert len(told) == len(units) * (TINY.rounds + 1)
    return found


def test_everything_is_timed_in_every_round(done: list[Done]) -> None:
    assert [one.unit.name for one in done] == [
        f"{over} run {run}" for run in range(2) for over in ("rows", "lengths")
    ]
    over_rows, over_lengths = done[0].measured["times"], done[1].measured["times"]
    assert len(over_rows) == 6 and len(over_lengths) == 3
    for times, xs in ((over_rows, {"64", "256"}), (over_lengths, {"4", "9"})):
        for by_x in times.values():
            assert by_x.keys() == xs
            assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in by_x.values())


def test_ratios_and_exponents(done: list[Done]) -> None:
    found = conclude(TINY, done)
    rows, lengths, growth = found.tables
    assert len(rows.rows) == 12 and len(lengths.rows) == 6 and len(growth.rows) == 9
    smallest = [row for row in rows.rows if row.name.endswith(", 64 rows")]
    assert len(smallest) == 6 and all(row.value == row.low == row.high == 1 for row in smallest)
    assert all(row.n == 6 and row.seeds == 2 and row.low <= row.high for row in growth.rows)
    assert "2 rows of 16 bytes" in found.notes[0]
    assert {plot.name for plot in found.plots} == {"time-over-rows", "time-over-tokens"}


def test_some_units_are_enough(done: list[Done]) -> None:
    found = conclude(TINY, done[:1])
    assert [table.title for table in found.tables] == ["Time and the size of the table", "Growth"]


def test_a_curve_takes_two_sizes() -> None:
    with pytest.raises(BadInput, match="at least two"):
        plan(Options(rows=(10,)))
    assert STUDY.name == "table_size"
