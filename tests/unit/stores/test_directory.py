import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engram_transformers.errors import (
    BadInput,
    FactRefused,
    HostMismatch,
    StoreDamaged,
    StoreError,
    StoreLocked,
    UnknownFact,
)
from engram_transformers.stores import Directory, is_memory
from engram_transformers.types import Fact, HostIdentity

NOTHING: dict[str, torch.Tensor] = {}


def test_facts_come_back_with_their_bits(store: Directory, path: Path, batch, same_bits) -> None:
    number = store.commit("teach", add=batch(30), who="ann", why="ops", source="ops.md")
    store.close()
    with Directory.open(path) as found:
        assert (found.kind, found.config, found.host.id) == (
            "lookup",
            {"threshold": 0.7},
            "smollm2-135m",
        )
        for stored, (fact, delta) in zip(found.facts(), batch(30), strict=True):
            assert (stored.id, stored.fact, stored.write) == (fact.id, fact, number)
            same_bits(delta, stored.delta)
        assert [each.fact for each in found.facts(deltas=False)] == [fact for fact, _ in batch(30)]
        assert found.facts(deltas=False)[0].delta == {}


def test_history_tells_who_did_what(store: Directory, batch) -> None:
    facts = batch(2)
    first = store.commit("teach", add=facts, who="ann", why="ops", receipt={"seconds": 0.5})
    second = store.commit("forget", remove=[facts[0][0].id], source="ticket 7")
    one, two = store.writes()
    assert (one.number, one.act, one.who, one.why) == (first, "teach", "ann", "ops")
    assert (one.added, one.removed) == (tuple(fact.id for fact, _ in facts), ())
    assert one.receipt == {"seconds": 0.5}
    assert one.at.endswith("+00:00")
    assert (two.number, two.act, two.removed) == (second, "forget", (facts[0][0].id,))
    assert (two.source, two.receipt) == ("ticket 7", None)
    assert store.writes(after=first) == [two]


def test_a_forgotten_fact_can_be_taught_again(store: Directory, batch) -> None:
    [(fact, delta)] = batch(1)
    for _ in range(3):
        store.commit("teach", add=[(fact, delta)])
        store.commit("forget", remove=[fact.id])
    store.commit("teach", add=[(fact, delta)])
    [stored] = store.facts()
    assert (stored.id, stored.write) == (fact.id, 7)
    assert store.stats().forgotten == 0


def test_the_same_answer_can_get_new_paraphrases_in_one_write(store: Directory) -> None:
    store.commit("teach", add=[(Fact("p", "a"), NOTHING)])
    better = Fact("p", "a", ["q"])
    store.commit("teach", add=[(better, NOTHING)], remove=[better.id])
    assert [each.fact for each in store.facts()] == [better]


def test_by_prompt_sees_through_spaces_and_composition(store: Directory) -> None:
    fact = Fact("Where is the  cafe\u0301?", "Paris")
    store.commit("teach", add=[(fact, NOTHING), (Fact("where is the café?", "Rome"), NOTHING)])
    asked = " Where is\tthe café?\n"
    found = store.by_prompt([asked, "Where?"])
    assert list(found) == [asked]
    assert [each.fact for each in found[asked]] == [fact]


def test_by_pair_keeps_subject_and_relation_apart(store: Directory) -> None:
    fact = Fact("p", "a", subject="a", relation="b c")
    half = Fact("p2", "a", subject="a b")
    store.commit("teach", add=[(fact, NOTHING), (half, NOTHING)])
    found = store.by_pair([("a ", "b  c"), ("a b", "c"), ("a b", "")])
    assert {pair: [each.id for each in facts] for pair, facts in found.items()} == {
        ("a ", "b  c"): [fact.id]
    }


def test_look_ups_leave_out_what_was_removed(store: Directory, batch) -> None:
    [(fact, delta)] = batch(1)
    store.commit("teach", add=[(fact, delta)])
    store.commit("forget", remove=[fact.id])
    assert store.by_prompt([fact.prompt]) == {}
    assert store.by_pair([(fact.subject or "", "port")]) == {}
    assert store.facts() == []


def test_get_takes_an_id_or_its_beginning(store: Directory, batch, same_bits) -> None:
    facts = batch(40)
    store.commit("teach", add=facts)
    fact, delta = facts[7]
    assert store.get(fact.id).fact == fact
    stored = store.get(fact.id[:8].upper())
    assert stored.id == fact.id
    same_bits(delta, stored.delta)


def test_get_says_what_is_near(store: Directory, batch) -> None:
    facts = batch(40)
    store.commit("teach", add=facts)
    fact = facts[0][0]
    with pytest.raises(UnknownFact, match=f"near: .*{fact.id}"):
        store.get(fact.id[:9] + "zzz")
    with pytest.raises(UnknownFact, match="no fact here has the id ''"):
        store.get("")
    one_digit = max((f.id[0] for f, _ in facts), key=[f.id[0] for f, _ in facts].count)
    with pytest.raises(UnknownFact, match="short for several facts"):
        store.get(one_digit)
    store.commit("forget", remove=[fact.id])
    with pytest.raises(UnknownFact, match="removed by write 2"):
        store.get(fact.id)


def test_wildcards_in_an_id_find_nothing(store: Directory, batch) -> None:
    store.commit("teach", add=batch(3))
    for odd in ("%", "_", "*", "' OR 1", "\0", "🙂"):
        with pytest.raises(UnknownFact):
            store.get(odd)


def test_a_write_is_all_or_nothing(store: Directory, batch) -> None:
    store.commit("teach", add=batch(3))
    before = store.facts(deltas=False)
    known, new = batch(3)[0], batch(1, seed=1)[0]
    with pytest.raises(BadInput, match="stored already"):
        store.commit("teach", add=[new, known])
    with pytest.raises(BadInput, match="twice"):
        store.commit("teach", add=[new, new])
    with pytest.raises(BadInput, match="twice"):
        store.commit("forget", remove=[known[0].id] * 2)
    with pytest.raises(UnknownFact, match="nothing was removed"):
        store.commit("teach", add=[new], remove=[known[0].id, "0" * 12])
    with pytest.raises(BadInput):
        store.commit("teach", add=[new, (Fact("p", "a"), {"x": "no tensor"})])  # type: ignore[dict-item]
    assert store.facts(deltas=False) == before
    assert store.commit("teach", add=[new]) == 2


def test_an_empty_write_is_recorded(store: Directory) -> None:
    assert store.commit("teach", why="all of it was known") == 1
    assert store.facts() == []


@pytest.mark.parametrize(
    "text",
    [
        "a\0b",
        "🙂👩‍👩‍👧",
        "שלום עולם",
        "\u202eabc",
        "ﬁ",
        "\ufeff",
        "'; DROP TABLE facts; --",
        "\r\n",
    ],
)
def test_odd_text_comes_back(store: Directory, text: str) -> None:
    fact = Fact(f"p{text}", text, [text, f"{text}?"], text, text, text)
    store.commit("teach", add=[(fact, {text: torch.ones(1)})], who=text, why=text, source=text)
    [stored] = store.facts()
    assert stored.fact == fact
    assert list(stored.delta) == [text]
    assert store.by_prompt([fact.prompt]).keys() == {fact.prompt}
    assert store.writes()[0].who == text


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.lists(st.text(min_size=1), min_size=6, max_size=6))
def test_any_text_comes_back(store: Directory, text: list[str]) -> None:
    fact = Fact(text[0], text[1], text[1:4], text[3], text[4], text[5])
    number = store.commit("teach", add=[(fact, NOTHING)])
    stored = store.get(fact.id)
    assert (stored.fact, stored.write) == (fact, number)
    store.commit("forget", remove=[fact.id])


def test_half_a_character_is_refused_and_escaped_where_it_is_only_a_note(store: Directory) -> None:
    for fact in (Fact("p\ud800", "a"), Fact("p", "a", ["\udfff"]), Fact("p", "a", source="\udc80")):
        with pytest.raises(FactRefused, match="half a character"):
            store.commit("teach", add=[(fact, NOTHING)])
    store.commit("teach", source="odd\udc80.txt", receipt={"file": "odd\udc80.txt"})
    [write] = store.writes()
    assert (write.source, write.receipt) == ("odd\\udc80.txt", {"file": "odd\udc80.txt"})


def test_another_host_is_named(store: Directory, host: HostIdentity) -> None:
    store.check_host(HostIdentity("a local copy", host.fingerprint))
    with pytest.raises(HostMismatch, match=r"smollm2-135m \(f1\).*qwen \(f2\)"):
        store.check_host(HostIdentity("qwen", "f2"))


def test_a_host_of_equal_weights_is_told_that_its_tokenizer_differs(tmp_path: Path) -> None:
    Directory.create(
        tmp_path / "m", kind="lookup", config={}, host=HostIdentity("qwen", "f1", "w1")
    ).close()
    with Directory.open(tmp_path / "m") as store:
        assert store.host.weights == "w1"
        with pytest.raises(HostMismatch, match="another tokenizer"):
            store.check_host(HostIdentity("qwen", "f2", "w1"))
        with pytest.raises(HostMismatch, match=r"qwen \(f1\).*qwen \(f2\)"):
            store.check_host(HostIdentity("qwen", "f2", "w2"))


def test_a_directory_that_does_not_note_the_weights_opens(
    store: Directory, path: Path, host: HostIdentity
) -> None:
    store.close()
    written = json.loads((path / "config.json").read_text())
    del written["host"]["weights"]
    (path / "config.json").write_text(json.dumps(written))
    with Directory.open(path) as old:
        old.check_host(HostIdentity("copy", host.fingerprint, "w1"))
        with pytest.raises(HostMismatch, match="f2"):
            old.check_host(HostIdentity("qwen", "f2", "w1"))


def test_one_writer_and_any_number_of_readers(store: Directory, path: Path, batch) -> None:
    with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
        Directory.open(path, writable=True)
    with Directory.open(path) as one, Directory.open(path) as two:
        store.commit("teach", add=batch(2))
        assert len(one.facts()) == len(two.facts()) == 2
        with pytest.raises(StoreError, match="reading only"):
            one.commit("teach")
    store.close()
    Directory.open(path, writable=True).close()


def test_a_closed_directory_says_so(store: Directory, path: Path) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match=r"ledger\.sqlite"):
        store.facts()
    with pytest.raises(StoreError, match="reading only"):
        store.commit("teach")


def test_create_refuses_what_is_not_its_own(path: Path, host: HostIdentity, store) -> None:
    def create(at: Path) -> None:
        Directory.create(at, kind="lookup", config={}, host=host)

    store.close()
    with pytest.raises(StoreError, match="a memory already"):
        create(path)
    (path.parent / "thesis").mkdir()
    (path.parent / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"chapter\.tex"):
        create(path.parent / "thesis")
    assert [each.name for each in (path.parent / "thesis").iterdir()] == ["chapter.tex"]
    (path.parent / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        create(path.parent / "file")


def test_config_must_be_json(path: Path, host: HostIdentity) -> None:
    with pytest.raises(BadInput, match="JSON"):
        Directory.create(path, kind="lookup", config={"x": object()}, host=host)
    assert not is_memory(path)
    Directory.create(path, kind="lookup", config={"x": 1}, host=host).close()


@pytest.mark.parametrize("left", ["nothing", "empty ledger", "ledger"])
def test_a_creation_that_was_cut_short_is_finished(
    path: Path, host: HostIdentity, store: Directory, left: str
) -> None:
    store.close()
    (path / "config.json").rename(path / ".config.json.new")
    if left != "ledger":
        (path / "ledger.sqlite").unlink()
    if left == "empty ledger":
        (path / "ledger.sqlite").touch()
    with pytest.raises(StoreError, match="no memory directory"):
        Directory.open(path)
    with Directory.create(path, kind="lookup", config={}, host=host) as again:
        assert again.commit("teach") == 1


def test_create_never_takes_over_a_ledger_with_facts(
    path: Path, host: HostIdentity, store: Directory, batch
) -> None:
    store.commit("teach", add=batch(1))
    store.close()
    (path / "memory.safetensors").unlink()
    kept = (path / "config.json").read_bytes()
    (path / "config.json").unlink()
    with pytest.raises(StoreDamaged, match=r"ledger\.sqlite holds facts"):
        Directory.create(path, kind="lookup", config={}, host=host)
    (path / "config.json").write_bytes(kept)
    with Directory.open(path, writable=True) as found:
        assert len(found.facts()) == 1


def test_stats_count_and_weigh(store: Directory, path: Path, batch) -> None:
    assert (store.stats().active, store.stats().bytes_per_fact) == (0, 0.0)
    store.commit("teach", add=batch(10))
    store.commit("forget", remove=[batch(10)[0][0].id])
    store.snapshot()
    stats = store.stats()
    assert (stats.active, stats.forgotten, stats.writes, stats.snapshot) == (9, 1, 2, 2)
    assert stats.files["ledger.sqlite"] == (path / "ledger.sqlite").stat().st_size
    assert stats.bytes_per_fact == stats.bytes / 9


def test_odd_paths_work(tmp_path: Path, host: HostIdentity, batch) -> None:
    path = tmp_path / "a b?mode=memory#x%41" / "שלום🙂"
    with Directory.create(path, kind="lookup", config={}, host=host) as store:
        store.commit("teach", add=batch(1))
    with Directory.open(str(path)) as found:
        assert len(found.facts()) == 1
    assert sorted(each.name for each in path.iterdir()) == [
        "config.json",
        "ledger.sqlite",
        "memory.safetensors",
        "write.lock",
    ]


def test_listing_facts_needs_no_torch(store: Directory, path: Path, batch) -> None:
    store.commit("teach", add=batch(2))
    code = (
        "import sys; from engram_transformers.stores import Directory\n"
        f"with Directory.open({str(path)!r}) as d: print(len(d.facts(deltas=False)))\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["2", "False"]
