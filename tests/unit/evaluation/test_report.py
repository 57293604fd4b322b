"""The report: what it shows, what it leaves out, and that its rules follow the numbers."""

from __future__ import annotations

import builtins
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.cli.main import main
from engram_transformers.errors import BadInput, MissingExtra, StoreDamaged, StoreTooNew
from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report import master_table, write_report
from engram_transformers.evaluation.report.columns import interval, kind, ordered, written
from engram_transformers.evaluation.report.decisions import Decision, decisions
from engram_transformers.evaluation.report.drawing import spread
from engram_transformers.evaluation.report.marks import marks
from engram_transformers.evaluation.report.page import colours
from engram_transformers.evaluation.report.palette import palette
from engram_transformers.evaluation.report.plots import difference
from engram_transformers.evaluation.report.sheet import Sheet, labels, sheets
from engram_transformers.evaluation.result import read_results
from fake_results import CAME, MEMORIES, TASKS, fake_results, number, share, write_fakes

Result = dict[str, Any]
SECTIONS = ["glance", "decide", "recall", "retention", "many", "cost", "harm", "needle"]
SECTIONS += ["numbers", "examples", "origin"]
EMPTY = {"area", "br", "hr", "img", "input", "link", "meta", "use", "path"}


class Read(HTMLParser):
    """A page taken apart; complains where elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole comparison."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(fake_results(), folder).page.read_text(encoding="utf-8")


def result(memory: str = "lookup", **more: Any) -> Result:
    return {"task": "zsre", "memory": memory, "n": 300, "provenance": CAME, **more}


def one(*results: Result) -> Sheet:
    (found,) = sheets(results)
    return found


def text_of(results: list[Result], folder: Path) -> str:
    return write_report(results, folder).page.read_text(encoding="utf-8")


def test_all_sections_appear_and_are_linked(whole: str) -> None:
    page = Read(whole)
    assert [v for tag, name, v in page.attributes if (tag, name) == ("section", "id")] == SECTIONS
    assert [v for tag, name, v in page.attributes if (tag, name) == ("a", "href")] == [
        f"#{name}" for name in SECTIONS
    ]
    for said in ("smollm2-135m", "text/retrieval", "bare host", "lookup/shuffled", "9aa9c8ec6e33"):
        assert said in page.text
    assert "engram compare --n 300 --seed 0" in page.text
    assert "lora cannot forget single facts" in page.text
    assert all(task in page.text for task in (*TASKS, "wikidata_cloze", "needle", "probes"))


def test_the_page_is_one_file_that_loads_nothing(whole: str) -> None:
    page = Read(whole)
    assert "://" not in whole and "@import" not in whole
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "image"}
    assert not page.all("src")
    assert all(value.startswith("#") for name in ("href", "xlink:href") for value in page.all(name))


def test_ids_are_unique_and_plots_are_told_in_words(whole: str) -> None:
    page = Read(whole)
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    svgs = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "role")]
    assert svgs == ["img"] * page.tags["svg"] and svgs
    told = page.all("aria-labelledby") + page.all("aria-describedby")
    assert set(told) <= set(ids)
    used = [value[1:] for value in page.all("xlink:href")]
    assert set(used) <= set(ids)


def test_colours_follow_light_and_dark(whole: str) -> None:
    assert "prefers-color-scheme:dark" in whole
    body = whole[whole.index("<body") :]
    fixed = {each.light for each in colours(sheets(fake_results())).values()}
    assert not [hue for hue in fixed if hue in body]
    assert "var(--ink)" in body and "var(--m0)" in body


def test_each_memory_has_one_colour(whole: str) -> None:
    known = colours(sheets(fake_results()))
    memories = [label for label in known if label.split("/")[-1] not in ("shuffled", "empty")]
    assert len({known[label].light for label in memories if label != "wrong"}) == len(memories) - 1
    more = palette([*known, "new/a", "new/b"], [])
    assert more["lookup"] == known["lookup"]
    assert more["new/a"] != more["new/b"]


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    text = text_of([result(gen_rel=share(0.9, 300))], tmp_path)
    page = Read(text)
    sections = [v for tag, name, v in page.attributes if (tag, name) == ("section", "id")]
    assert sections == ["glance", "decide", "recall", "numbers", "origin"]
    assert page.tags["figure"] == page.tags["svg"] == 1
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["recall-zsre.png"]
    assert "nan" not in page.text.lower() and "None" not in page.text


@pytest.mark.parametrize("broken", [None, "much", 3, [], {}, {"value": None}, [None], {"n": 3}])
def test_parts_of_another_shape_are_left_out(broken: Any, tmp_path: Path) -> None:
    parts = ("gen_gen", "curve", "retention_by_age", "examples", "absent", "categories", "options")
    odd = result(gen_rel=share(0.9, 300), **dict.fromkeys(parts, broken))
    odd |= {"provenance": broken, "n": broken, "seed": broken, "variant": broken, "seconds": broken}
    Read(text_of([odd, result("lora", gen_rel=share(0.2, 300))], tmp_path))


def test_a_result_without_numbers_is_a_page(tmp_path: Path) -> None:
    page = Read(text_of([result(gen_rel={"value": float("nan"), "n": 0})], tmp_path))
    assert page.tags["svg"] == 0 and "lookup" in page.text


def test_unknown_names_appear(tmp_path: Path) -> None:
    odd = [
        {**result(memory, quux_rate=share(0.5, 40), frobs=number(17.5, 40)), "task": "novelty"}
        for memory in ("hypernet", "hypernet2")
    ]
    page = Read(text_of(odd, tmp_path))
    for said in ("novelty", "hypernet2", "quux rate", "50.0", "frobs", "17.5"):
        assert said in page.text
    assert marks(one(*odd), "quux_rate") == {}


HOSTILE = "</title><script>alert(1)</script>\"'><img src=https://x.example/a.png onerror=x()>"


def test_hostile_text_is_text(tmp_path: Path) -> None:
    bad = f"{HOSTILE}\n\x00$\\frac{{$ ‮ 🦜 </style></svg>-->"
    odd = {
        "task": bad,
        "memory": bad,
        "variant": bad,
        "protocol": bad,
        "n": 5,
        "seed": bad,
        "options": {bad: bad},
        "absent": {"undo_exact": bad},
        "gen_rel": share(0.5, 30),
        bad: share(0.5, 30),
        "undo_exact": None,
        "categories": {"gen_rel": {bad: share(0.4, 30)}, bad: {bad: share(0.4, 30)}},
        "examples": {"wrong": [{"group": bad, "asked": bad, "wanted": bad, "said": bad}]},
        "retention_by_age": [{"from": 0, "to": 9, **share(0.5, 30)}],
        "curve": [{"T": 5, "gen_rel": share(0.5, 30), bad: share(0.5, 30)}],
        "provenance": {"host": bad, "commit": bad, bad: bad, "command": bad},
    }
    text = text_of([odd, {**odd, "control": bad}], tmp_path)
    page = Read(text)
    assert not page.tags.keys() & {"script", "img"}
    assert not page.all("onerror") and not page.all("src")
    assert page.text.count("alert(1)") > 20
    assert all(path.parent == tmp_path / "plots" for path in tmp_path.rglob("*.png"))
    assert "<script" not in master_table([odd]) and "\n\n" in master_table([odd])


def test_long_answers_are_cut(tmp_path: Path) -> None:
    said = {"asked": "a" * 9000, "wanted": ["b", "c"], "said": "  "}
    odd = result(gen_rel=share(0.5, 30), examples={"right": [said] * 50, "wrong": []})
    page = Read(text_of([odd], tmp_path))
    assert "a" * 200 not in page.text and page.text.count("b / c") == 5
    assert "nothing" in page.text


def test_the_best_is_marked_and_what_cannot_be_told_from_it() -> None:
    sheet = one(
        result("none", gen_rel=share(0.02, 300)),
        result("lookup", gen_rel=share(0.95, 300)),
        result("lora", gen_rel=share(0.93, 300)),
        result("bias", gen_rel=share(0.5, 300)),
        result("text", variant="oracle", gen_rel=share(1, 300)),
        result("lookup", control="shuffled", gen_rel=share(1, 300)),
    )
    assert marks(sheet, "gen_rel") == {"lookup": "best", "lora": "tied"}


def test_equal_values_are_both_best() -> None:
    sheet = one(result("a", gen_rel=share(0.9, 300)), result("b", gen_rel=share(0.9, 300)))
    assert marks(sheet, "gen_rel") == {"a": "best", "b": "best"}


def test_low_values_are_best_where_they_are_good() -> None:
    sheet = one(
        *(
            result(
                name, gen_rel=share(rel, 300), ms_per_token=number(ms, 9), loc_fire=share(f, 300)
            )
            for name, rel, ms, f in [("a", 0.9, 40, 0.5), ("b", 0.9, 90, 0.0), ("c", 0.1, 1, 0.9)]
        )
    )
    assert marks(sheet, "loc_fire") == {"b": "best"}
    # c is fastest, but it has learnt too little for that to count.
    assert marks(sheet, "ms_per_token") == {"a": "best"}


def test_nothing_is_best_that_does_not_beat_the_bare_host() -> None:
    rows = [result("a", gen_rel=share(0.05, 300)), result("b", gen_rel=share(0.03, 300))]
    assert marks(one(*rows), "gen_rel") == {"a": "best", "b": "tied"}
    assert marks(one(*rows, result("none", gen_rel=share(0.04, 300))), "gen_rel") == {}


def test_a_memory_alone_is_not_marked() -> None:
    assert marks(one(result("a", gen_rel=share(1, 300)), result("none")), "gen_rel") == {}


def test_memories_compete_with_equally_many_facts_taught() -> None:
    rows = [("a", 300, 0.6), ("b", 300, 0.5), ("c", 20, 1.0), ("d", 9000, 1.0)]
    sheet = one(*(result(name, gen_rel=share(v, 300)) | {"n": n} for name, n, v in rows))
    assert [row.label for row in sheet.contenders] == ["a", "b"]
    assert marks(sheet, "gen_rel")["a"] == "best"
    assert {row.label: row.note for row in sheet.rows}["c"] == "20 facts"


def test_results_of_one_memory_are_told_apart() -> None:
    twins = [result(n=10), result(n=20), result("lora", seed=1), result("lora", seed=2)]
    found = labels([one(*twins, result("bias"), result("bias"))])
    assert found == [
        "lookup, n 10",
        "lookup, n 20",
        "lora, seed 1",
        "lora, seed 2",
        "bias",
        "bias #2",
    ]
    two = sheets([result(), result(provenance={**CAME, "host": "other"})])
    assert [sheet.title for sheet in two] == ["zsre, other", "zsre, smollm2-135m"]


def decision(*changes: tuple[str, str, float]) -> Decision:
    """The decision on ZsRE after changes of (memory, metric, value)."""
    found = [r for r in fake_results() if r["task"] == "zsre"]
    for memory, name, value in changes:
        for each in found:
            if each["memory"] == memory and each["variant"] in ("default", "retrieval"):
                cost = name.endswith(("_fact", "_token"))
                each[name] = number(value, 300) if cost else share(value, 300)
    (only,) = decisions(sheets(found))
    return only


def test_the_decision_follows_the_numbers() -> None:
    found = decision()
    assert (found.job, found.use, found.compared) == ("single questions", ("lookup",), 7)
    named = {need: list(cell.named) for need, cell in found.cells.items()}
    assert named["unchanged"] == ["lookup"] and named["forgets"] == ["lookup", "text/retrieval"]
    assert named["cheapest"] == ["text/retrieval"] and named["fastest"] == ["fine_tune", "lookup"]
    assert decision(("lora", "gen_gen", 1.0), ("lookup", "gen_gen", 0.9)).use == ("lora",)
    fast = decision(("lora", "ms_per_token", 10)).cells["fastest"]
    assert list(fast.named) == ["lora"]


def test_ties_are_broken_in_order_and_what_remains_is_named_together() -> None:
    # As good in other words, the taught prompts decide; as good there too, what stays unchanged.
    assert decision(("text", "gen_gen", 0.98)).use == ("lookup",)
    tied = [("text", "gen_gen", 0.98), ("text", "gen_rel", 1.0)]
    assert decision(*tied).use == ("lookup",)
    # Silent on unrelated prompts is not enough: near misses must be spared as well.
    tied.append(("text", "loc_bitexact", 1.0))
    assert decision(*tied).use == ("lookup",)
    assert decision(*tied, ("text", "hard_loc", 1.0)).use == ("lookup", "text/retrieval")


def test_a_memory_that_teaches_nothing_is_not_recommended() -> None:
    cells = decision(("bias", "seconds_per_fact", 0), ("bias", "loc_bitexact", 1)).cells
    assert not any("bias" in cell.named for cell in cells.values())
    useless = [(row[0], name, 0.02) for row in MEMORIES for name in ("gen_rel", "gen_gen")]
    found = decision(*useless)
    assert set(found.use) <= {"text/examples"}


def test_nobody_is_named_for_leaving_unchanged_what_it_changes() -> None:
    cells = decision(("lookup", "loc_bitexact", 0.6), ("lookup", "undo_exact", 0.99)).cells
    assert not cells["unchanged"].named
    assert list(cells["forgets"].named) == ["text/retrieval"]


def test_many_facts_are_decided_where_most_were_taught() -> None:
    found = [each for each in decisions(sheets(fake_results())) if each.task == "wikidata_cloze"]
    (many,) = found
    assert (many.job, many.compared, many.use) == ("many facts: 20,000", 2, ("lookup",))


def test_differences_carry_an_interval() -> None:
    bare, worse = Measure(0.5, 0.4, 0.6, 90), Measure(0.4, 0.3, 0.5, 90)
    found = difference(worse, bare, ratio=False)
    assert found.value == pytest.approx(-0.1)
    assert (found.low, found.high) == pytest.approx((-0.1 - 0.02**0.5, -0.1 + 0.02**0.5))
    ratio = difference(Measure(22, 22, 22, 9), Measure(20, 20, 20, 9), ratio=True)
    assert (ratio.value, ratio.low) == pytest.approx((0.1, 0.1))


def test_labels_are_moved_apart() -> None:
    places = [0.5, 0.5, 0.5, 0.02, 0.9]
    found = spread(places, gap=0.1)
    assert sorted(found) == pytest.approx([0.02, 0.4, 0.5, 0.6, 0.9])
    crowded = sorted(spread([0.0] * 5, gap=0.1))
    assert crowded == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_numbers_are_written_in_their_units() -> None:
    assert [written(v, "share") for v in (1, 0.9999, 0.983, 0.0001, 0)] == [
        "100", "99.9", "98.3", "0.1", "0",
    ]  # fmt: skip
    assert written(0.055, "s") == "55 ms" and written(9200, "B") == "9.2 kB"
    assert written(1.02, "x") == "1.02×" and written(12345.6, "ms") == "12,346 ms"
    assert interval(Measure(0.05, 0.05, 0.06, 9), "s") == "50–60 ms"
    assert interval(Measure(0.9, 0.9, 1.1, 9), "s") == "900 ms–1.1 s"
    assert interval(Measure(3, 3, 3, 9), "B") == ""
    assert ordered(["ms_per_token", "needle_1024", "needle_0", "gen_gen", "gen_rel"]) == [
        "gen_rel", "gen_gen", "needle_0", "needle_1024", "ms_per_token",
    ]  # fmt: skip
    assert kind("hard_neighbour") == "unchanged" and kind("whatever") == "other"


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    some = [r for r in fake_results() if r["task"] in ("zsre", "wikidata_cloze")][:16]
    first, second = (write_report(some, tmp_path / name) for name in "ab")
    assert [p.name for p in first.plots] == [p.name for p in second.plots]
    for one_file, other in zip(
        (first.page, *first.plots), (second.page, *second.plots), strict=True
    ):
        assert one_file.read_bytes() == other.read_bytes()


def test_the_table_for_documents() -> None:
    lines = master_table(fake_results()).splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[2:] if line.startswith("|")}
    assert lines[0].startswith("| memory | zsre: taught<br><sub>n 300</sub> | zsre: paraphrase")
    assert len({line.count(" | ") for line in rows.values()} | {lines[0].count(" | ")}) == 1
    assert "**100** <sub>98.7–100</sub>" in rows["lookup"]
    assert "99.0 = <sub>96.4–99.7</sub>" in rows["fine\\_tune"]
    assert "1,000 facts" in rows["lora"] and "**" not in rows["*bare host*"]
    assert "Measured on smollm2-135m." in lines[-1]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(["report", *argv])
    found = capsys.readouterr()
    return status, found.out, found.err


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys)
    assert status == 2 and "name a folder of results" in err
    write_fakes(tmp_path / "results", [result(gen_rel=share(0.9, 300)), result("none")])
    (tmp_path / "results" / "cases.jsonl").write_text("{}")
    status, out, _ = run(capsys, "--json")
    found = json.loads(out)
    assert (status, found["page"], found["results"]) == (0, "report/report.html", 2)
    assert found["plots"] == ["report/plots/recall-zsre.png"]
    assert found["tasks"] == ["zsre"] and found["memories"] == ["lookup", "bare host"]
    assert Path(found["page"]).exists() and Path(found["plots"][0]).exists()
    status, out, _ = run(capsys, "results", "-o", "here/there")
    assert status == 0 and out.startswith("here/there/report.html: 2 results of 1 task\n")


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    status, _, err = run(capsys, str(tmp_path / "nowhere"), "-o", out)
    assert status == 2 and "nowhere is no folder" in err
    status, _, err = run(capsys, str(tmp_path), "-o", out)
    assert status == 2 and "has no *.result.json" in err
    foreign = tmp_path / "a.result.json"
    for text, said in (
        ("not json", "is no result"),
        ("[1]", "is no result"),
        (
            '{"format": 99, "task": "t", "memory": "m"}',
            "has result format 99, this version reads 1",
        ),
    ):
        foreign.write_text(text)
        status, _, err = run(capsys, str(tmp_path), "-o", out)
        assert status == 1 and said in err and "a.result.json" in err and err.count("\n") == 1
    foreign.write_text('{"format": 1, "task": "t", "memory": "m"}')
    status, _, err = run(capsys, str(tmp_path), "-o", str(foreign))
    assert status == 2 and "is a file; name a directory" in err
    assert not Path(out).exists()


def test_errors_from_python(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no results"):
        write_report([], tmp_path)
    (tmp_path / "x.result.json").write_text("{}")
    with pytest.raises(StoreDamaged):
        read_results(tmp_path)
    (tmp_path / "x.result.json").write_text('{"format": 2, "task": "t", "memory": "m"}')
    with pytest.raises(StoreTooNew):
        read_results(tmp_path)


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"engram-transformers\[report\]"):
        write_report([result(gen_rel=share(0.9, 300))], tmp_path / "out")
    assert not (tmp_path / "out").exists()
