"""Keys counted against a slow count, memories trained, controls that say nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engram_transformers.api import Host, load
from engram_transformers.errors import BadInput, UnknownTask
from engram_transformers.models.tokens import HostTokens
from engram_transformers.studies.collisions.counting import _reader, _windows, counted
from engram_transformers.studies.collisions.keys import keys_of, random_keys, words_of
from engram_transformers.studies.collisions.options import Options
from engram_transformers.studies.collisions.recall import _opened, _right, _shuffled
from engram_transformers.studies.collisions.study import _size, conclude, measure, plan
from engram_transformers.studies.study import Done
from engram_transformers.studies.trained import changed
from hosts import tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def host(folder: Path) -> Host:
    return load(str(folder))


def tiny_tokens() -> HostTokens:
    return HostTokens(tiny_tokenizer(), stop=1)


def small(folder: Path) -> Options:
    return Options(
        layouts=("unigram", "deepseek", "qwen"), sets=("random", "user_preferences"),
        counts=(20,), sizes=(10, 1_000), trained=("deepseek", "span", "unigram"), keys=4,
        rows=(3, 50), crowds=(6,), crowded=(3,), seeds=1, host=str(folder), layers=(0,), epochs=30,
        batch=4, width=8,
    )  # fmt: skip


def test_random_keys_are_drawn_once_each() -> None:
    keys = random_keys(200, seed=1)
    assert len({key.prompt for key in keys}) == 200 and keys == random_keys(200, seed=1)
    assert keys[0].prompt.startswith("SYN_") and len(keys[0].answer) == 4
    assert keys != random_keys(200, seed=2)
    assert [key.prompt for key in random_keys(50, seed=1)] == [key.prompt for key in keys[:50]]
    words = words_of(tiny_tokens(), vocab=400)
    assert "port" in words and all(len(tiny_tokens().encode(f" {word}")) == 1 for word in words)
    assert {key.answer for key in random_keys(50, seed=0, words=words)} <= set(words)
    with pytest.raises(BadInput, match="no whole words"):
        words_of(tiny_tokens(), vocab=5)
    prompts = [key.prompt for key in keys_of("user_preferences", 30, seed=0)]
    assert len(prompts) == len(set(prompts)) == 30
    with pytest.raises(UnknownTask):
        keys_of("nothing", 1, seed=0)


@pytest.mark.parametrize("layout", ["unigram", "deepseek", "deepseek-v4.1", "qwen"])
def test_shares_are_those_of_a_slow_count(layout: str, folder: Path, host: Host) -> None:
    options, keys = small(folder), random_keys(60, seed=0)
    found = counted(host, options, layout, 20, keys)
    reader = _reader(host, options, layout, 20)
    ends = [tuple(line.tolist()) for line in _windows(host, reader, keys)]
    rows = [
        tuple(reader.layout.rows_of([torch.tensor([i]).numpy() for i in end])[0]) for end in ends
    ]
    own = [
        any(sum(other[slot] == mine[slot] for other in rows) == 1 for slot in range(len(mine)))
        for mine in rows
    ]
    assert found["with a row of their own"] == pytest.approx(sum(own) / 60)
    once = Counter(rows)
    assert found["told apart"] == pytest.approx(sum(once[mine] == 1 for mine in rows) / 60)
    n_grams = Counter(end[: reader.layout.longest] for end in ends)
    expected = sum(n_grams[end[: reader.layout.longest]] == 1 for end in ends) / 60
    assert found["with an n-gram of their own"] == pytest.approx(expected)
    assert found["told apart"] <= found["with an n-gram of their own"] + 1e-6
    assert found["orders"][0]["order"] == reader.layout.orders[0]
    assert _size(layout, found) == reader.layout.rows


def test_windows_are_the_last_tokens_newest_first(folder: Path, host: Host) -> None:
    keys = random_keys(2, seed=0)
    reader = _reader(host, small(folder), "qwen", 20)
    ids = host.tokens.prompt_ids(keys[0].prompt, form="plain")
    assert _windows(host, reader, keys)[0].tolist() == ids[: -reader.layout.longest - 1 : -1]


@pytest.mark.parametrize("layout", ["deepseek", "unigram", "span"])
def test_another_hash_reads_other_rows_for_a_while(
    layout: str, folder: Path, host: Host, tmp_path: Path
) -> None:
    keys, options = random_keys(3, seed=0), replace(small(folder), epochs=20, learning_rate=0.01)
    host.tokens.form = "plain"
    with _opened(host, str(tmp_path), options, layout, 50, 0) as memory:
        memory.teach(keys, check=False)
        text = torch.tensor([host.tokens.prompt_ids(keys[0].prompt, form="plain")])
        with torch.no_grad():
            taught = host.model(text).logits
            with _shuffled(host, memory.memory):
                other = host.model(text).logits
            with changed(memory.memory, torch.zeros_like):
                nothing = host.model(text).logits
            with host.bare():
                assert torch.equal(nothing, host.model(text).logits)
            assert not torch.equal(taught, other) and not torch.equal(taught, nothing)
            assert torch.equal(taught, host.model(text).logits)
        assert 0 <= _right(memory, keys) <= 3


def test_a_whole_study(folder: Path) -> None:
    options, told = small(folder), []
    units = plan(options)
    assert len(units) == 3 * 2 + 5 + 2 and len({unit.digest for unit in units}) == len(units)
    done = [Done(u, measure(u, lambda *given: told.append(given)), 1.0, {}) for u in units]
    assert told
    found = conclude(options, done)
    # What has rows of its own is recalled in full, and by these rows.
    span = next(one.measured for one in done if one.unit.settings.get("layout") == "span")
    assert span["recall"] == span["keys"] == 4
    assert span["tables zeroed"] == span["bare host"] == span["hash shuffled"] == 0
    titles = [table.title for table in found.tables]
    assert titles[2:] == ["Recall of random keys", "Controls of recall"] and len(titles) == 4
    counts, _, recall, controls = found.tables
    assert len(counts.rows) == 6 and len(recall.rows) == 7 and len(controls.rows) == 10
    assert all(row.low <= row.value <= row.high for table in found.tables for row in table.rows)
    by_name = {row.name: row.more for row in counts.rows}
    # Sixteen tables of a thousand rows hold twenty keys that differ in their last tokens.
    seen = by_name["qwen, 20 keys, 1,000 rows a table"]
    assert seen["told apart"] == seen["with an n-gram of their own"] > 0.5
    assert [plot.name for plot in found.plots] == ["collisions", "recall", "crowding"]
    assert [row.name for row in controls.rows[:2]] == ["bare host", "deepseek, tables zeroed"]
    # One seed: the keys of its largest draw, once.
    by_layout = {row.name: (row.n, row.seeds) for row in controls.rows}
    assert by_layout["bare host"] == by_layout["unigram, hash shuffled"] == (6, 1)
    assert by_layout["span, keys not taught"] == (4, 1)
    assert by_name["unigram, 20 keys, 10 rows a table"]["rows in all"] == 10
    crowded = next(row for row in recall.rows if row.name == "unigram, 6 keys, 3 rows a table")
    assert crowded.more["rows in all"] == 3 and crowded.more["keys for a row"] == 2
    _, over_rows, crowding = (plot.panels[0] for plot in found.plots)
    assert {one.label for one in over_rows.series} == {"deepseek", "span", "unigram"}
    assert {one.label: [x for x, _ in one.points] for one in crowding.series}[
        "unigram, 4 keys"
    ] == [4 / 50, 4 / 3]
    assert "at 0.08" in crowding.words
    some = conclude(options, done[:2])
    assert len(some.tables) == 1 and len(some.plots) == 1


def test_counting_and_training_have_settings_of_their_own(folder: Path) -> None:
    options = small(folder)
    units = {unit.digest for unit in plan(options)}
    trained_longer = {unit.digest for unit in plan(replace(options, epochs=9))}
    more_rows = {unit.digest for unit in plan(replace(options, sizes=(10,)))}
    assert len(units & trained_longer) == 6 and len(units & more_rows) == 7
    # A crowd is so many keys, by whichever option they were asked for.
    asked = replace(options, trained=("deepseek",), keys=6, rows=(3,), crowds=())
    assert plan(asked)[-1].digest in units


def test_bad_options() -> None:
    for wrong in (
        {"layouts": ("span",)},
        {"trained": ("x",)},
        {"keys": 0},
        {"values": "x"},
        {"crowds": (0,)},
    ):
        with pytest.raises(BadInput):
            Options(**wrong)  # type: ignore[arg-type]
