"""The demonstration: its data, its safety, and on the real model its numbers."""

from __future__ import annotations

import pytest

from engram_transformers.demo.data import demo_data


def test_the_data_keeps_what_is_taught_apart_from_what_is_asked():
    data = demo_data()
    prompts = [one.fact.prompt for one in data.facts]
    held_out = [text for one in data.facts for text in one.held_out]
    assert len(prompts) >= 160 and data.prompts >= 100 and len(data.near_misses) >= 30
    asked = [*prompts, *held_out, *data.unrelated, *data.near_misses]
    assert len({text.casefold() for text in asked}) == len(asked)
    assert all(not one.fact.paraphrases for one in data.facts)


def test_a_demonstration_on_a_tiny_host(engram, host_folder, tmp_path):
    words = ("demo", "-m", str(host_folder), "--address", "exact", "--limit", "9")
    ran = engram(*words, "--json")
    assert ran.status == 0
    found = ran.json
    assert found["facts"] == 9
    for name in ("taught_exact", "unrelated_bit_equal", "restored_bit_equal", "undo_exact"):
        assert found[name] == 1.0, name
        assert 0 < found["interval_95"][name][0] < 1 and found["n"][name] > 0
    assert found["paraphrase_exact"] < 0.5, "an exact address cannot know other wordings"
    assert set(found["categories"]) <= {one.category for one in demo_data().facts}
    again = engram(*words)
    assert again.status == 0 and "taught questions answered exactly" in again.out
    listed = engram("list", "-M", "demo-memory", "--json").json
    assert listed["total"] == 9


def test_it_deletes_nothing_but_its_own(engram, host_folder, tmp_path, taught):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in (taught, "mine", "file"):
        assert engram("demo", "-m", str(host_folder), "-M", name).status == 2
    assert engram("stats", "-M", taught, "--json").json["active"] == 3
    assert (tmp_path / "mine" / "letter.txt").read_text() == "x"


@pytest.mark.slow
def test_the_demonstration(engram, monkeypatch):
    monkeypatch.delenv("ENGRAM_MODEL")
    ran = engram("demo", "--limit", "60", "--json")
    assert ran.status == 0
    assert ran.json["taught_exact"] >= 0.95 and ran.json["paraphrase_exact"] >= 0.8
    assert ran.json["restored_bit_equal"] == 1.0
    assert engram("ask", "redis default port?", "-M", "demo-memory").out == "6379\n"
