"""The frame of studies: units are done once, kept at once, and concluded from."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.cli.eval import option
from engram_transformers.cli.main import main
from engram_transformers.errors import (
    BadInput,
    DataMissing,
    StoreDamaged,
    StoreError,
    UnsupportedCall,
)
from engram_transformers.evaluation.metrics import Measure, rate_of
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.studies.catalogue import STUDIES, studies, study_named
from engram_transformers.studies.estimates import (
    exponent,
    median,
    over_runs,
    share_over_runs,
    slope,
)
from engram_transformers.studies.options import configured, meanings
from engram_transformers.studies.page import aside, markdown, write_page
from engram_transformers.studies.result import read_result, write_result
from engram_transformers.studies.run import all_kept, kept, pending, run
from engram_transformers.studies.study import (
    Done,
    Findings,
    Heatmap,
    Study,
    Table,
    Told,
    Unit,
    row,
    settings_of,
)
from engram_transformers.studies.trained import over_questions, pooled, second
from fake_results import fake_results, write_fakes


@dataclass(frozen=True)
class Options:
    """Squares of a few numbers."""

    numbers: tuple[int, ...] = (1, 2, 3)
    "What is squared."
    power: float = 2.0
    """What it is raised to,
    as a number."""
    word: str = "x"
    "A text."


def plan(options: Options) -> list[Unit]:
    return [
        Unit(f"number {n}", settings_of(options, but=("numbers",), number=n))
        for n in options.numbers
    ]


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    told("squaring", 1, 1)
    number = unit.settings["number"]
    if number == 13:
        raise UnsupportedCall("13 cannot be squared")
    if number == 99:
        raise KeyboardInterrupt
    return {"value": number ** unit.settings["options"]["power"]}


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    found = over_runs([one.measured["value"] for one in done])
    points = tuple((float(one.unit.settings["number"]), found) for one in done)
    panel = Panel("squares", "", (Series("all", points),), "number", lines=True)
    heat = Heatmap("heat", "Heat", ("a", "b|\n"), ("row",), ((0.1, 0.9),))
    table = Table("Squares", "mean", (row("a|b", found, seeds=len(done), more={"extra": 5_000}),))
    return Findings((table,), (Plot("curve", "Curve", (panel,)), heat), ("A note.",))


STUDY = Study("squares", "What are squares?", Options, plan, measure, conclude)


def done_of(options: Options, folder: Path, **how: Any) -> list[Any]:
    units = plan(options)
    return list(run(STUDY, pending(folder, units), folder, **how))


def test_units_are_done_once_and_other_options_are_other_units(tmp_path: Path) -> None:
    first = done_of(Options(), tmp_path)
    assert [step.number for step in first] == [1, 2, 3] and all(s.of == 3 for s in first)
    assert not done_of(Options(), tmp_path)
    assert [s.unit.name for s in done_of(Options(numbers=(2, 4)), tmp_path)] == ["number 4"]
    assert len(done_of(Options(power=3.0), tmp_path)) == 3
    found = all_kept(tmp_path, plan(Options()))
    assert [one.measured["value"] for one in found] == [1, 4, 9]
    assert found[0].provenance["torch"] and found[0].seconds >= 0


def test_an_interruption_loses_only_the_unit_under_way(tmp_path: Path) -> None:
    options = Options(numbers=(1, 99, 3))
    with pytest.raises(KeyboardInterrupt):
        done_of(options, tmp_path)
    assert [unit.name for unit in pending(tmp_path, plan(options))] == ["number 99", "number 3"]
    # A file that a kill left half-written is under another name, and never read.
    assert len(list((tmp_path / "units").iterdir())) == 1


def test_a_unit_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    steps = done_of(Options(numbers=(1, 13, 3)), tmp_path)
    assert [step.error for step in steps] == [None, "13 cannot be squared", None]
    assert steps[0].left >= 0 and steps[-1].left == 0


def test_units_in_several_processes(tmp_path: Path) -> None:
    steps = done_of(Options(numbers=(1, 2, 13)), tmp_path, jobs=2)
    assert len(steps) == 3 and sum(step.error is not None for step in steps) == 1
    assert {one.measured["value"] for one in all_kept(tmp_path, plan(Options()))} == {1, 4}


def test_a_damaged_unit_is_named(tmp_path: Path) -> None:
    unit = plan(Options())[0]
    path = tmp_path / "units" / unit.file
    path.parent.mkdir()
    for text in ("{", "[]", '{"format": 99}'):
        path.write_text(text)
        with pytest.raises(StoreDamaged, match=unit.file):
            kept(tmp_path, unit)


def test_a_disk_that_refuses_stops_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "units").write_text("a file")
    with pytest.raises(StoreError, match="units"):
        list(run(STUDY, plan(Options()), tmp_path))


def test_settings_are_plain_and_decide_the_digest() -> None:
    one, other = plan(Options())[0], plan(Options(numbers=(1,)))[0]
    assert one == other and one.digest == other.digest and one.file.startswith("number-1-")
    assert one.digest != plan(Options(word="y"))[0].digest
    assert json.loads(json.dumps(one.settings)) == one.settings


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STUDIES, "squares", __name__)


def test_result_and_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder, page = tmp_path / "results", tmp_path / "docs" / "squares.md"
    done_of(Options(), folder)
    units = plan(Options())
    done = all_kept(folder, units)
    result = write_result(STUDY, Options(), done, folder, planned=4, plots=True)
    assert json.loads(json.dumps(result)) == read_result(folder)
    assert all((folder / plot["file"]).stat().st_size > 1000 for plot in result["plots"])
    write_page(result, folder, page)
    text = page.read_text()
    assert text == markdown(read_result(folder), folder, page)
    for part in ("# Squares", "What are squares?", "3 of 4 units", "a\\|b", "5,000", "* A note.",
                 "../results/plots/curve.png", "power=2.0", "numbers=1,2,3"):  # fmt: skip
        assert part in text
    assert "| a\\|b | 4.667 | -5.374 to 14.71 | 3 | 3 | 5,000 |" in text
    assert len(result["provenance"]) == 1


def test_a_page_says_which_command_makes_it(tmp_path: Path) -> None:
    folder, page = tmp_path / "results" / "squares_few", tmp_path / "docs" / "squares_few.md"
    options = Options(numbers=(2, 3), word="two words")
    done_of(options, folder)
    done = all_kept(folder, plan(options))
    result = write_result(STUDY, options, done, folder, planned=2, plots=False)
    title, told, *_ = markdown(read_result(folder), folder, page).split("\n\n")
    assert title == "# Squares few" == markdown(result, folder, page).split("\n\n")[0]
    command = shlex.split(told.split("`")[1])
    assert command[:3] == ["engram", "study", "squares"]
    assert command[-4:] == ["-o", "results/squares_few", "--page", "docs/squares_few.md"]
    given = dict(map(option, command[4:-4:2]))
    assert given == {"numbers": [2, 3], "word": "two words"}
    assert configured(Options, given) == options


def test_two_forms_of_a_study_have_two_pages_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, numbers in (("squares", (1, 2, 3)), ("squares_few", (2,))):
        folder, options = tmp_path / "studies" / name, Options(numbers=numbers)
        done_of(options, folder)
        done = all_kept(folder, plan(options))
        write_result(STUDY, options, done, folder, planned=len(done), plots=False)
    write_fakes(tmp_path / "compared", fake_results()[:2])
    argv = ["report", str(tmp_path / "compared"), "-o", str(tmp_path / "out")]
    assert main([*argv, "--studies", str(tmp_path / "studies"), "--json"]) == 0
    pages = [Path(page) for page in json.loads(capsys.readouterr().out)["studies"]]
    assert [page.name for page in pages] == ["squares.html", "squares_few.html"]
    assert "numbers=1,2,3" in pages[0].read_text() and "numbers=2" in pages[1].read_text()
    text = (tmp_path / "out" / "report.html").read_text()
    assert ">Squares</a>" in text and ">Squares few</a>" in text


def test_the_report_has_a_page_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    folder, out = tmp_path / "studies" / "squares", tmp_path / "out"
    done_of(Options(), folder)
    done = all_kept(folder, plan(Options()))
    write_result(STUDY, Options(), done, folder, planned=4, plots=True)
    write_fakes(tmp_path / "compared", fake_results()[:2])
    argv = ["report", str(tmp_path / "compared"), "-o", str(out), "--json"]
    assert main([*argv, "--studies", str(tmp_path / "studies")]) == 0
    assert json.loads(capsys.readouterr().out)["studies"] == [str(out / "pages" / "squares.html")]
    text = (out / "pages" / "squares.html").read_text()
    for part in ("<h1>Squares</h1>", "What are squares?", "3 of 4 units", "<td>5,000</td>",
                 "A note.", "data:image/png;base64,", "power=2.0"):  # fmt: skip
        assert part in text
    assert '<a href="pages/squares.html">Squares</a>' in (out / "report.html").read_text()
    for plot in (folder / "plots").iterdir():
        plot.unlink()
    assert "data:image" not in aside(read_result(folder), folder).body  # its words remain
    assert main([*argv, "--studies", str(tmp_path / "none")]) == 0
    assert "pages/" not in (out / "report.html").read_text()


def test_a_missing_or_foreign_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="engram study"):
        read_result(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(StoreDamaged, match="no result"):
        read_result(tmp_path)


def test_options_take_what_is_given_in_the_type_that_they_declare() -> None:
    assert configured(Options, {"numbers": [4], "power": 3}) == Options((4,), 3.0)
    assert configured(Options, {"numbers": 4}).numbers == (4,)
    for given, words in (
        ({"nubmers": 1}, "did you mean 'numbers'"),
        ({"zzz": 1}, "there are numbers, power, word"),
        ({"power": "much"}, "use a number"),
        ({"numbers": ["a"]}, "use a list of whole numbers"),
        ({"word": 3}, "use a text"),
        ({"power": True}, "use a number"),
    ):
        with pytest.raises(BadInput, match=words):
            configured(Options, given)
    assert meanings(Options) == {
        "numbers": "What is squared.",
        "power": "What it is raised to, as a number.",
        "word": "A text.",
    }


def test_every_study_explains_itself() -> None:
    found = studies()
    assert [study.name for study in found] == list(STUDIES)
    for study in found:
        assert study.question.endswith("?") and study.Options.__doc__
        assert meanings(study.Options).keys() == study.Options.__dataclass_fields__.keys()
    with pytest.raises(BadInput, match="did you mean 'scratch'"):
        study_named("scratsh")


STORED = Path(__file__).parents[3] / "benchmarks" / "results" / "studies"


@pytest.mark.parametrize("folder", sorted(STORED.iterdir()), ids=lambda folder: folder.name)
def test_stored_units_are_still_those_that_their_options_ask_for(folder: Path) -> None:
    result = read_result(folder)
    study = study_named(result["study"])
    try:
        units = study.plan(configured(study.Options, result["options"]))
    except DataMissing as missing:
        pytest.skip(str(missing))
    assert len(all_kept(folder, units)) >= result["units"]["done"] > 0


def test_intervals_of_few_runs_are_students() -> None:
    found = over_runs([1.0, 2.0, 3.0])
    assert found.value == 2 and found.n == 3
    assert math.isclose(found.high - 2, 4.303 / math.sqrt(3), rel_tol=1e-6)
    assert over_runs([5.0]) == Measure(5, 5, 5, 1) and over_runs([]).n == 0
    assert over_runs([0.0, 1.0] * 30).n == 60


def test_medians_and_slopes() -> None:
    found = median([3.0, 1.0, 2.0, 50.0, 2.0])
    assert found.value == 2 and found.low <= 2 <= found.high and found.n == 5
    assert median([]).n == 0
    assert math.isclose(slope([1, 2, 3], [5, 7, 9]), 2)
    assert math.isclose(exponent([1, 10, 100], [3, 300, 30_000]), 2)


def test_words_of_a_heatmap_name_its_highest() -> None:
    heat = Heatmap("h", "Gates", ("a", " b"), ("block 1",), ((0.1, 0.9),))
    assert heat.words == "Gates; highest: 'b' 0.90, 'a' 0.10."
    blank = Heatmap("h", "Gates", ("\n", "  "), ("block 1",), ((0.9, 0.1),))
    assert blank.words == "Gates; highest: '↵' 0.90, '␣' 0.10."


def test_findings_are_made_from_some_units_too(tmp_path: Path) -> None:
    done_of(Options(numbers=(2,)), tmp_path)
    some = all_kept(tmp_path, plan(Options()))
    found = conclude(Options(), some)
    assert found.tables[0].rows[0].seeds == 1
    assert replace(some[0], seconds=0.0) != some[0] or some[0].seconds == 0


def test_seeds_that_ask_the_same_add_no_cases() -> None:
    one, three = over_questions([[9, 10]]), over_questions([[9, 9, 10], [8, 9, 10], [10, 9, 10]])
    assert one == rate_of(9, 10) and three.value == pytest.approx(0.9) and three.n == 10
    assert (three.low, three.high) == pytest.approx((one.low, one.high))
    assert pooled([[9, 10], [8, 10]]) == rate_of(17, 20)
    assert over_questions([[0, 0], [1, 4], [1, 2]]) == rate_of(0.75, 2)
    assert over_questions([]) == rate_of(0, 0) and over_questions([[5, 5]] * 3).value == 1
    assert second([[0, 1, 4], [0, 3, 4]]) == 0.5


def test_the_interval_of_a_share_stays_a_share() -> None:
    found, free = share_over_runs([0.0, 0.3, 0.0]), over_runs([0.0, 0.3, 0.0])
    assert free.low < 0 == found.low and found.high == free.high and found.value == free.value
    assert over_runs([1.0, 0.9, 1.0]).high > 1 == share_over_runs([1.0, 0.9, 1.0]).high
