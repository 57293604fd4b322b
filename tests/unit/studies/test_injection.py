"""Injection: one form for all routes, controls that pass, and numbers that come to tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engram_transformers.api import load
from engram_transformers.errors import BadInput, PlaceNotFound, TrainingDiverged
from engram_transformers.memories.shared.behind import Steps
from engram_transformers.memories.shared.soft import Lesson, start, train
from engram_transformers.memories.shared.vectors import chunks, last, mean, raw, to_norm
from engram_transformers.studies.injection import measuring, routes
from engram_transformers.studies.injection.asking import Injected
from engram_transformers.studies.injection.facts import chosen, made_up
from engram_transformers.studies.injection.options import Options
from engram_transformers.studies.injection.routes import Bench, Given
from engram_transformers.studies.injection.study import STUDY, conclude, measure, plan
from engram_transformers.studies.options import configured
from engram_transformers.studies.study import Done
from hosts import tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def bench(folder: Path) -> Bench:
    return Bench(load(str(folder)))


def small(folder: Path, **changes: object) -> Options:
    given = {"facts": 2, "tuned": 1, "layers": (0, 1), "scales": (1.0,), "share": 1, "steps": 2}
    return Options(host=str(folder), others=2, **{**given, **changes})


def test_facts_are_many_of_each_kind_and_their_wordings_are_all_different() -> None:
    facts = made_up()
    assert len(facts) >= 58 and {f.kind for f in facts} == {"number", "name", "place", "word"}
    words = [w for f in facts for w in (f.question, *f.rewordings, *f.held_out)]
    assert len(words) == len(set(words)) == 6 * len(facts)
    for fact in facts:
        assert fact.answer.removesuffix(" metres") in fact.statement
        assert not any(fact.answer in w for w in (fact.question, *fact.rewordings, *fact.held_out))
    tuning, asked = chosen(tuned=6, facts=52)
    assert not {f.subject for f in tuning} & {f.subject for f in asked}


def test_states_in_slots_and_a_real_cache_are_the_text(bench: Bench) -> None:
    facts = made_up()[:3]
    text = bench.ask(facts, routes.text(bench), routes.asked)
    slots = bench.ask(facts, routes.keys_and_values(bench), routes.asked)
    empty = bench.ask(facts, routes.empty_slots(bench), routes.asked)
    for fact, one, other, blank in zip(facts, text, slots, empty, strict=True):
        behind = bench.asking.after(bench.form.text(fact.statement))
        [cached] = behind.ask([bench.case(fact, fact.question, Given(), read=True)])
        assert other.logprob == pytest.approx(one.logprob, abs=1e-3) and other.said == one.said
        assert cached.logprob == pytest.approx(one.logprob, abs=1e-3) and cached.said == one.said
        assert blank.logprob != pytest.approx(one.logprob, abs=1e-3)


def test_a_batch_says_what_each_case_alone_says(bench: Bench) -> None:
    facts = made_up()[:4]
    for route in (routes.text(bench), routes.added(bench, layer=0, scale=2.0, everywhere=True)):
        cases = [bench.case(f, f.question, route(f)) for f in facts]
        for case, one in zip(cases, bench.asking.ask(cases), strict=True):
            [alone] = bench.asking.ask([case])
            assert alone.logprob == pytest.approx(one.logprob, abs=1e-3)
            assert alone.said == one.said


def test_a_patch_behind_the_last_block_says_what_the_reading_host_says(bench: Bench) -> None:
    fact, layer = made_up()[0], len(bench.adapter.layers) - 1
    text, blank = routes.text(bench)(fact), routes.empty_slots(bench)(fact)
    [donor] = bench.asking.ask([bench.case(fact, fact.question, text)])
    states = routes.answer_states(bench, bench.case(fact, fact.question, text), [layer])
    patched = routes.with_late(blank, states[layer], layer)
    [found] = bench.asking.ask([bench.case(fact, fact.question, patched)])
    assert found.logprob == pytest.approx(donor.logprob, abs=1e-3)


def test_vectors_stand_before_or_behind_the_question(bench: Bench) -> None:
    fact = made_up()[0]
    for behind in (False, True):
        route = routes.pooled(bench, "chunks", layer=0, scale=1.0, count=3, behind=behind)
        case = bench.case(fact, fact.question, route(fact))
        at = case.ids[case.begin : case.begin + 3]
        assert at == (routes.PLACEHOLDER,) * 3 and case.ids[-len(bench.form.close) :] == (
            bench.form.close
        )


def test_few_vectors_of_many_states() -> None:
    states = torch.arange(10.0).reshape(5, 2)
    assert torch.equal(raw(states, 9), states) and torch.equal(last(states, 1), states[-1:])
    assert torch.equal(mean(states, 1)[0], states.mean(0)) and chunks(states, 5).equal(states)
    assert torch.equal(chunks(states, 2)[1], states[3:].mean(0))
    assert to_norm(states, 3.0).norm(dim=-1).mean() == pytest.approx(3.0)
    assert torch.equal(to_norm(torch.zeros(2, 2), 1.0), torch.zeros(2, 2))
    with pytest.raises(BadInput, match="a text of 5 tokens has no 8 chunks"):
        chunks(states, 8)
    with pytest.raises(BadInput, match="NaN"):
        mean(states * float("nan"), 1)
    with pytest.raises(BadInput, match="without tokens"):
        last(states[:0], 1)


def test_training_lowers_the_loss_and_touches_nothing_else(bench: Bench) -> None:
    lesson = Lesson((7, 8), (9, 1))
    before = {name: p.clone() for name, p in bench.adapter.model.named_parameters()}
    begin = start(bench.adapter, "x", slots=3, seed=0)
    assert torch.equal(begin, start(bench.adapter, "x", slots=3, seed=0))
    found = train(bench.adapter, [lesson], begin=begin, steps=Steps(30, 0.3))
    assert min(found.losses) < found.losses[0] and len(found.losses) == 30
    assert all(torch.equal(p, before[n]) for n, p in bench.adapter.model.named_parameters())
    assert all(p.grad is None for p in bench.adapter.model.parameters())
    with pytest.raises(TrainingDiverged, match="no number"):
        train(bench.adapter, [lesson], begin=begin * float("nan"), steps=Steps(2, 0.3))
    with pytest.raises(BadInput, match="at least 1"):
        start(bench.adapter, "x", slots=0, seed=0)


def test_every_unit_is_measured_and_comes_to_tables(folder: Path) -> None:
    ways = tuple(way for way in Options().ways if "retrieved" not in way and "lookup" not in way)
    ways = tuple(way for way in ways if "address" not in way)
    options = small(folder, ways=ways)
    units = plan(options)
    assert len({unit.digest for unit in units}) == len(units)
    done = []
    for unit in units:
        if not unit.name.startswith("soft"):
            done.append(Done(unit, measure(unit, lambda *_: None), 1.0, {}))
    found = conclude(options, done)
    titles = [table.title for table in found.tables]
    assert titles[0] == "Asked as taught" and "Controls that have to pass" in titles
    assert {plot.name for plot in found.plots} >= {"said", "sweep-chunks", "late-patch"}
    controls = next(t for t in found.tables if t.title == "Controls that have to pass")
    assert [row.value for row in controls.rows if "keys" in row.name] == [1.0, 1.0]


def test_paraphrases_are_held_against_one_question_fact_by_fact() -> None:
    def part(logprob: float, right: int) -> dict[str, object]:
        case = [logprob, right, right, 1, 0, "x"]
        return {
            "facts": ["a", "b"], "asked": [case, case], "held": [[case, case]], "tokens": 4,
            "of another": [[-9.0, 0, 0, 1, 0, "y"]] * 2, "vectors": 4, "seconds an answer": 0.1,
            "found": [case, case], "fired": {"a": "a", "b": None}, "elsewhere": {},
        }  # fmt: skip

    own = {"way": "soft prompt, one question"}, {"way": "soft prompt, paraphrases"}
    units = [type("U", (), {"settings": each})() for each in own]
    done = [
        Done(unit, part(p, r), 1.0, {})
        for unit, p, r in zip(units, (-6.0, -1.0), (0, 1), strict=True)
    ]
    tables = conclude(Options(), done).tables
    gains = next(t for t in tables if t.title.startswith("Soft prompts"))
    values = {row.name: row.value for row in gains.rows}
    assert values["held-out words: said exactly"] == 1 and gains.rows[0].n == 2
    assert values["held-out words: log-probability"] == 5


def test_the_quick_form_and_bad_options() -> None:
    options = configured(Options, STUDY.quick)
    assert 0 < len(plan(options)) < len(plan(Options()))
    with pytest.raises(BadInput, match="ways has no 'telepathy'"):
        Options(ways=("telepathy",))
    with pytest.raises(BadInput, match="there are 68 facts"):
        plan(Options(facts=90))
    with pytest.raises(BadInput, match="scales are above 0"):
        Options(scales=(0.0,))


def test_an_unknown_layer_is_named(bench: Bench, folder: Path) -> None:
    with pytest.raises(PlaceNotFound, match="has 2 blocks"):
        measuring.swept(bench, "added", small(folder, layers=(7,)), lambda *_: None)


def test_nothing_injected_is_the_default() -> None:
    assert Given().injected == Injected() and Injected().slots is None
