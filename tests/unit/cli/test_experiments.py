"""`eval` and `compare`: measured, kept, not done twice, and clear about what is wrong."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.evaluation import result as results
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.experiments import bench as benches
from engram_transformers.experiments import compare as compares
from engram_transformers.experiments.parallel import groups
from engram_transformers.experiments.spec import Experiment
from engram_transformers.stores import files
from engram_transformers.types import Fact

DOOR = Fact("What colour is the door?", "Green")
TASK = Task(
    name="doors",
    form="chat",
    facts=(DOOR, Fact("Which port does billing use?", "8443")),
    asked={"paraphrase": (Question.about(DOOR, "Tell me the door's colour."),)},
    silent={"unrelated": ("How far is the station?",)},
)


@pytest.fixture(autouse=True)
def doors(monkeypatch: pytest.MonkeyPatch) -> None:
    load = benches.load_task
    monkeypatch.setattr(benches, "load_task", lambda n: TASK if n == "doors" else load(n))


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    folder = tmp_path / "experiments"
    for name, given in {
        "doors/none/default": {"n": 2},
        "doors/lookup/exact": {"n": 2, "options": {"address": "exact"}},
    }.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(given))
    return folder


def test_eval_prints_one_object_with_every_metric(engram: Any, tmp_path: Path) -> None:
    ran = engram("eval", "doors", "--set", "address=exact", "--n", "2", "--json")
    found = ran.json
    assert ran.status == 0 and (found["task"], found["memory"], found["n"]) == (
        "doors",
        "lookup",
        2,
    )
    for name in ("gen_rel", "gen_gen", "tf_rel", "gen_stop", "loc_bitexact", "undo_exact"):
        assert {"value", "low", "high", "n"} <= found[name].keys()
    assert found["gen_rel"]["value"] == 1.0
    kept = tmp_path / "results" / "doors-lookup-exact-n2-s0.result.json"
    assert results.read_result(kept)["gen_rel"] == found["gen_rel"]
    cases = (tmp_path / "results" / found["records"]).read_text().splitlines()
    assert len(cases) == 4 and json.loads(cases[0])["exact"]


def test_eval_as_a_table(engram: Any) -> None:
    ran = engram("eval", "doors", "--memory", "none", "--n", "2")
    assert "gen_rel" in ran.out and "0.000" in ran.out and "kept in results" in ran.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("zsra",), "no task is called 'zsra'; try zsre"),
        (("doors", "--memory", "lokup"), "no kind of memory is called 'lokup'; try lookup"),
        (("doors", "--set", "adress=exact"), "no option 'adress'"),
        (("doors", "--set", "candidates=many"), "candidates is 'many'; use a whole number"),
        (("doors", "--set", "address"), "is not KEY=VALUE"),
        (("doors", "--control", "context"), "is for needle, not for doors"),
        (("doors", "--points", "1,x"), "is not a list of numbers"),
    ],
)
def test_eval_says_what_is_wrong(engram: Any, argv: tuple[str, ...], said: str) -> None:
    ran = engram("eval", *argv)
    assert ran.status == 2 and said in ran.err


def test_a_wrong_option_is_told_before_a_host_is_loaded(engram: Any) -> None:
    ran = engram("eval", "doors", "--set", "adress=exact", "--model", "./nowhere")
    assert ran.status == 2 and "no option 'adress'" in ran.err


def test_eval_without_data_says_where_to_get_it(
    engram: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path / "nothing"))
    ran = engram("eval", "zsre")
    assert ran.status == 2 and "ENGRAM_DATA" in ran.err and "docs/data.md" in ran.err


def test_compare_runs_what_is_missing_or_changed(engram: Any, experiments: Path) -> None:
    first = engram("compare", str(experiments), "-o", "kept", "--json")
    assert first.status == 0 and len(first.json["done"]) == 2
    assert engram("compare", str(experiments), "-o", "kept", "--list").out == ""
    path = experiments / "doors/none/default.json"
    path.write_text(json.dumps({"n": 2, "asked": 1}))
    again = engram("compare", str(experiments), "-o", "kept", "--json")
    assert [one["experiment"] for one in again.json["done"]] == ["doors-none-default-n2-s0"]
    forced = engram("compare", str(experiments), "-o", "kept", "--force", "--json")
    assert len(forced.json["done"]) == 2
    only = engram("compare", str(experiments), "--only", "*/lookup/*", "-o", "new", "--json")
    assert len(only.json["done"]) == 1


def test_an_interrupted_comparison_goes_on(
    engram: Any, experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = compares.run_and_keep, []

    def stopped(bench: Any, experiment: Any, folder: Path) -> Any:
        calls.append(experiment.memory)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(bench, experiment, folder)

    monkeypatch.setattr(compares, "run_and_keep", stopped)
    assert engram("compare", str(experiments), "-o", "kept").status == 130
    ran = engram("compare", str(experiments), "-o", "kept")
    assert ran.status == 0 and calls == ["lookup", "none", "none"]


def test_an_experiment_that_fails_does_not_stop_the_others(engram: Any, experiments: Path) -> None:
    late = experiments / "doors/rank_one/late.json"
    late.parent.mkdir()
    late.write_text('{"n": 2, "options": {"layers": [99]}}')
    ran = engram("compare", str(experiments), "-o", "kept", "--json")
    assert ran.status == 1 and len(ran.json["done"]) == 2
    assert "layer 99" in ran.json["failed"][0]["error"]


def test_a_wrong_option_is_told_before_any_experiment(engram: Any, experiments: Path) -> None:
    (experiments / "doors/lookup/exact.json").write_text('{"n": 2, "options": {"top_k": 3}}')
    ran = engram("compare", str(experiments), "-o", "kept")
    assert ran.status == 2 and "no option 'top_k'" in ran.err and not Path("kept").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ('{"number": 3}', "an experiment has no 'number'"),
        ('{"n": 0}', "at least one fact"),
        ('{"control": "none"}', "control is 'none'"),
    ],
)
def test_experiments_that_are_none(engram: Any, experiments: Path, text: str, said: str) -> None:
    (experiments / "doors/none/default.json").write_text(text)
    ran = engram("compare", str(experiments))
    assert ran.status == 2 and said in ran.err


def test_compare_refuses_results_of_another_version(engram: Any, experiments: Path) -> None:
    engram("compare", str(experiments), "-o", "kept")
    path = Path("kept/doors-none-default-n2-s0.result.json")
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    ran = engram("compare", str(experiments), "-o", "kept")
    assert ran.status == 1 and "result format 99" in ran.err and "delete it" in ran.err
    path.write_text("half a fi")
    assert "is no result" in engram("compare", str(experiments), "-o", "kept").err


def test_a_full_disk_loses_no_result(
    engram: Any, experiments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engram("compare", str(experiments), "-o", "kept")
    before = {p.name: p.read_bytes() for p in Path("kept").iterdir()}

    def full(path: Path, parts: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_write_new", full)
    monkeypatch.setattr(compares, "write_result", results.write_result)
    ran = engram("compare", str(experiments), "--only", "*/none/*", "-o", "kept", "--force")
    assert ran.status == 1 and "No space left on device" in ran.err
    assert {p.name: p.read_bytes() for p in Path("kept").iterdir()} == before


def test_unknown_experiments_are_named(engram: Any, experiments: Path) -> None:
    ran = engram("compare", str(experiments), "--only", "doors/lora")
    assert ran.status == 2 and "doors/lookup/exact" in ran.err
    assert engram("compare", "nowhere").status == 2


def test_experiments_side_by_side(engram: Any, tmp_path: Path) -> None:
    given = {"n": 2, "silent": 2, "options": {"address": "exact"}}
    folder = tmp_path / "side" / "user_preferences"
    for memory, options in {"none": {}, "lookup": given["options"]}.items():
        (folder / memory).mkdir(parents=True)
        path = folder / memory / "default.json"
        path.write_text(json.dumps(given | {"options": options}))
    ran = engram("compare", str(folder.parent), "--jobs", "2", "-o", "kept", "--json")
    assert ran.status == 0 and len(ran.json["done"]) == 2 and "2 of 2" not in ran.out
    found = {one["memory"]: one for one in results.read_results(Path("kept"))}
    assert found["lookup"]["gen_rel"]["value"] == 1.0 > found["none"]["gen_rel"]["value"]


def test_what_teaches_the_same_stays_in_one_process() -> None:
    one, two = (Experiment("doors", "none", n=n) for n in (1, 2))
    same = Experiment("doors", "none", n=1, asked=3)
    assert groups([one, same, two]) == [[one, same], [two]]
