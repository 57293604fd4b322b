"""`study`: listed, run, interrupted and gone on with, concluded, written as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.cli.eval import option
from engram_transformers.studies import table_size

TINY = [
    f"--set={option}"
    for option in (
        "rows=[64,256]", "lengths=[4,9]", "heads=1", "width=4", "hidden=32", "blocks=2", "vocab=64",
        "chunk=8", "written=2", "fixed_length=5", "fixed_rows=100", "rounds=2", "runs=1",
    )
]  # fmt: skip


def test_studies_are_listed_with_their_questions(engram: Any) -> None:
    ran = engram("study")
    assert ran.status == 0 and "table_size" in ran.out and "?" in ran.out
    found = engram("study", "--json").json["studies"]
    assert {"scratch", "collisions", "table_size"} <= {one["name"] for one in found}


def test_options_and_units_are_listed(engram: Any) -> None:
    ran = engram("study", "table_size", "--list", *TINY)
    assert ran.status == 0 and "rows=64,256" in ran.out and "todo  rows run 0" in ran.out
    found = engram("study", "table_size", "--list", "--json", *TINY).json
    assert found["done"] == [] and len(found["todo"]) == 2 and found["means"]["runs"]


def test_a_study_runs_once_and_has_a_page(engram: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ran = engram("study", "table_size", *TINY, "-o", "out", "--page", "docs/size.md")
    assert ran.status == 0 and "look-up of one token" in ran.out
    assert "2 of 2" in ran.err and "0 done already" in ran.err
    page = (tmp_path / "docs" / "size.md").read_text()
    assert "(../out/plots/time-over-rows.png)" in page and "# Table size" in page
    assert json.loads((tmp_path / "out" / "result.json").read_text())["units"]["done"] == 2
    again = engram("study", "table_size", *TINY, "-o", "out", "--json", "--no-plots")
    assert "2 done already" in again.err and again.json["study"] == "table_size"


def test_an_interrupted_study_goes_on(engram: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = table_size.measure

    def interrupted(unit: Any, told: Any) -> dict[str, Any]:
        if unit.settings["over"] == "lengths":
            raise KeyboardInterrupt
        return measure(unit, told)

    broken = table_size.Study(**{**vars(table_size.STUDY), "measure": interrupted})
    with monkeypatch.context() as patch:
        patch.setattr(table_size, "STUDY", broken)
        ran = engram("study", "table_size", *TINY, "--no-plots")
    assert ran.status == 130 and "1 of 2 units are kept" in ran.err
    stored = engram("study", "table_size", *TINY, "--no-plots", "--stored", "--page", "size.md")
    assert stored.status == 0 and "1 of 2 units" in Path("size.md").read_text()
    ran = engram("study", "table_size", *TINY, "--no-plots")
    assert ran.status == 0 and "1 done already" in ran.err


def test_a_quick_form_has_options_of_its_own(
    engram: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small: dict[str, Any] = dict(map(option, (one.removeprefix("--set=") for one in TINY)))
    quick = table_size.Study(**{**vars(table_size.STUDY), "quick": small})
    monkeypatch.setattr(table_size, "STUDY", quick)
    ran = engram("study", "table_size", "--quick", "--set", "runs=2", "-o", "out", "--no-plots")
    assert ran.status == 0
    result = json.loads((tmp_path / "out" / "quick" / "result.json").read_text())
    assert result["options"]["rows"] == [64, 256] and result["options"]["runs"] == 2


@pytest.mark.parametrize(
    "argv, words",
    [
        (["tabel_size"], "did you mean 'table_size'"),
        (["table_size", "--set", "row=3"], "did you mean 'rows'"),
        (["table_size", "--set", "rows"], "not KEY=VALUE"),
        (["table_size", "--set", "rows=3"], "at least two"),
        (["table_size", "--jobs", "0"], "whole number"),
        (["table_size", "--quick"], "no quick form"),
    ],
)
def test_bad_input(engram: Any, argv: list[str], words: str) -> None:
    ran = engram("study", *argv)
    assert ran.status == 2 and words in ran.err


def test_nothing_to_conclude_from(engram: Any) -> None:
    ran = engram("study", "table_size", "--stored", "--no-plots", "-o", "nowhere")
    assert ran.status == 1 and "no unit" in ran.err


def test_failed_units_make_the_command_fail(engram: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(unit: Any, told: Any) -> dict[str, Any]:
        raise MemoryError("no room")

    broken = table_size.Study(**{**vars(table_size.STUDY), "measure": fails})
    monkeypatch.setattr(table_size, "STUDY", broken)
    ran = engram("study", "table_size", *TINY, "--no-plots")
    assert ran.status == 1 and "no room" in ran.err and "no unit" in ran.err
