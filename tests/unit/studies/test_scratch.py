"""A decoder from scratch: sizes as asked, the same batches, memory that is really read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput, DataMissing, TrainingDiverged
from engram_transformers.studies.scratch import study as scratch
from engram_transformers.studies.scratch.allocation import Losses, shape_of_curve
from engram_transformers.studies.scratch.findings import conclude
from engram_transformers.studies.scratch.options import Options
from engram_transformers.studies.scratch.study import measure, plan
from engram_transformers.studies.scratch.text import corpus
from engram_transformers.studies.scratch.training import loss_of, train
from engram_transformers.studies.scratch.variants import (
    BASELINE,
    SAME_FLOPS,
    WIDE,
    counted,
    shape_of,
    tables_of,
    variants,
)
from engram_transformers.studies.study import Done
from engram_transformers.studies.trained import changed, in_other_order

TINY = Options(
    texts=("tinyshakespeare",), shares=(50, 100), seeds=2, extra=20_000, vocab=300, hidden=32,
    blocks=2, heads=2, inner=48, context=16, batch=4, steps=12, tables=2, width=8, shown=10,
)  # fmt: skip
WORDS = ["the", "king", "of", "France", "went", "to", "see", "a", "wise", "queen", "by night"]


@pytest.fixture(autouse=True)
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    draw = random.Random(0)
    whole = "\n".join(" ".join(draw.choices(WORDS, k=8)) + "." for _ in range(120))
    path = tmp_path / "data" / "text" / "tinyshakespeare.txt"
    path.parent.mkdir(parents=True)
    path.write_text(whole)
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path / "data"))
    yield whole


def small() -> object:
    return corpus("tinyshakespeare", vocab=300, held_out=0.1, context=16)


def test_runs_of_a_seed_differ_by_their_variant_alone() -> None:
    units = plan(TINY)
    assert len(units) == 2 * 5 and len({unit.digest for unit in units}) == 10
    assert [u.settings["variant"] for u in units[:5]] == variants(TINY)
    more = plan(replace(TINY, seeds=3, shares=(100,)))
    assert {u.digest for u in more} > {u.digest for u in units if "50" not in u.name}


def test_variants_have_the_parameters_that_they_should() -> None:
    options = replace(TINY, extra=200_000)
    text = small()
    found = {}
    for variant in variants(options):
        model, memory = scratch._made(variant, 0, options, text)  # type: ignore[arg-type]
        found[variant] = counted(model, memory, context=16)
    base = found[BASELINE]["parameters"]
    for variant in (WIDE, "engram 50 %", "engram 100 %"):
        assert abs(found[variant]["parameters"] - base - 200_000) < 6_000
    assert found["engram 100 %"]["in tables"] > 190_000
    # As much computation as an Engram of any size, and no more.
    flops = {variant: found[variant]["FLOPs a token"] for variant in found}
    assert flops[BASELINE] < flops[SAME_FLOPS] <= flops["engram 100 %"] < flops[WIDE]
    with pytest.raises(BadInput, match="projections alone"):
        shape_of("engram 50 %", replace(options, extra=1000))


def test_operations_are_those_that_torch_counts() -> None:
    model, memory = scratch._made("engram 100 %", 0, TINY, small())  # type: ignore[arg-type]
    assert memory is not None
    ids = torch.randint(0, 300, (1, 16))
    with attach(model, memory), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False)
    by_name = counter.get_flop_counts()["Global"]
    matrices = sum(n for op, n in by_name.items() if "attention" not in str(op) and "bmm" not in
                   str(op))  # fmt: skip
    told = counted(model, memory, context=16)["FLOPs a token"]
    attention = 2 * 17 * 32 * 2
    # The norms' gains are among the projections' parameters, and are no matrices.
    assert abs((told - attention) * 16 - matrices) <= 16 * 2 * 2 * 32


def test_pieces_cover_the_text_before_any_comes_again() -> None:
    text = small()
    count = (len(text.train) - 17) // 16  # type: ignore[attr-defined]
    rows = torch.cat(list(text.batches(rows=1, context=16, steps=count - 1, seed=3)))  # type: ignore[attr-defined]
    starts = {tuple(row.tolist()) for row in rows}
    assert rows.shape[1] == 17 and len(starts) > 0.9 * len(rows)
    again = torch.cat(list(text.batches(rows=1, context=16, steps=count - 1, seed=3)))  # type: ignore[attr-defined]
    assert torch.equal(rows, again)
    held = text.rows(16)  # type: ignore[attr-defined]
    assert torch.equal(held[:-1, -1], held[1:, 0])


def test_the_tokenizer_has_not_seen_what_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "data" / "text" / "tinyshakespeare.txt"
    path.write_text(path.read_text() + "xyzzyxyzzy " * 30)
    found = corpus("tinyshakespeare", vocab=300, held_out=0.1, context=16)
    assert not any("xyz" in token for token in found.tokenizer.get_vocab())


def test_what_cannot_be_trained_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="docs/data"):
        plan(replace(TINY, texts=("wikitext2",)))
    (tmp_path / "data" / "short.txt").write_text("too short")
    with pytest.raises(BadInput, match="shorter context"):
        corpus("short.txt", vocab=300, held_out=0.1, context=16)
    for wrong in ({"heads": 3}, {"shares": (0,)}, {"held_out": 1.0}, {"batch": 0}):
        with pytest.raises(BadInput):
            replace(TINY, **wrong)  # type: ignore[arg-type]
    model, _ = scratch._made(BASELINE, 0, TINY, small())  # type: ignore[arg-type]
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="step 1"):
        train(model, None, [torch.zeros(1, 17, dtype=torch.int64)], TINY, lambda: None)


def test_tables_are_zeroed_and_shuffled_for_a_while() -> None:
    text = small()
    model, memory = scratch._made("engram 100 %", 0, TINY, text)  # type: ignore[arg-type]
    assert memory is not None
    rows = text.rows(16)  # type: ignore[attr-defined]
    bare = loss_of(model, rows, batch=4)
    batches = text.batches(rows=4, context=16, steps=30, seed=0)  # type: ignore[attr-defined]
    with attach(model, memory):
        losses = train(model, memory, batches, replace(TINY, steps=30), lambda: None)
        assert losses[-1][1] < losses[0][1] and losses[-1][0] == 30
        before = [table.detach().clone() for table in tables_of(memory)]
        full = loss_of(model, rows, batch=4)
        with changed(memory, torch.zeros_like):
            nothing = loss_of(model, rows, batch=4)
        with changed(memory, in_other_order()):
            other = loss_of(model, rows, batch=4)
        assert all(map(torch.equal, before, tables_of(memory)))
        assert loss_of(model, rows, batch=4) == full < bare
    assert nothing == loss_of(model, rows, batch=4)  # an Engram of nothing adds nothing
    assert len({full, nothing, other}) == 3


def test_a_whole_study() -> None:
    told: list[str] = []
    options = replace(TINY, conv=True, layers=(0, 1), extra=40_000)
    done = [
        Done(unit, measure(unit, lambda *given: told.append(given[0])), 1.0, {})
        for unit in plan(options)
    ]
    assert len(told) == 10 * options.steps
    found = conclude(options, done)
    losses, against, paired, carried = found.tables
    assert [row.name for row in losses.rows] == variants(options)
    assert all(row.seeds == 2 and row.low <= row.value <= row.high for row in losses.rows)
    assert [row.name for row in against.rows] == variants(options)[1:]
    names = [f"engram {n} % minus {other}" for other in (WIDE, SAME_FLOPS) for n in (50, 100)]
    assert [row.name for row in paired.rows] == names and all(r.seeds == 2 for r in paired.rows)
    of = {row.name: row.value for row in losses.rows}
    assert paired.rows[0].value == pytest.approx(of["engram 50 %"] - of[WIDE])
    assert found.notes[0].startswith("tinyshakespeare: in the paper") and "U" in found.notes[0]
    assert len(carried.rows) == 4 and carried.rows[0].more["rows moved"] > 0
    assert [plot.name for plot in found.plots] == ["allocation", "gates-tinyshakespeare"]
    heat = found.plots[1]
    assert len(heat.columns) == 10 and len(heat.rows) == 2  # type: ignore[union-attr]
    assert all(0 <= value <= 1 for row in heat.values for value in row)  # type: ignore[union-attr]
    assert not any("not comparable" in note for note in found.notes)
    part = conclude(options, done[:2])
    assert len(part.tables[0].rows) == 2 and not part.tables[2:]


def by_seed(*means: float, spread: float = 0.0) -> Losses:
    """Losses of three seeds at 0, 50 and 100 %, the middle ones this far apart."""
    apart = {0: 0.0, 50: spread, 100: 0.0}
    return {
        share: {seed: mean + (seed - 1) * apart[share] for seed in range(3)}
        for share, mean in zip(apart, means, strict=True)
    }


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (by_seed(5, 4, 4.5), "the U is there; the best share in between, 50 %, has by seed -1.000"),
        (by_seed(5, 4, 4.5, spread=2), "the means form a U, which these seeds do not show"),
        (by_seed(5, 4.8, 4.5), ": no U; the best"),
        (by_seed(4, 4.8, 4.5), ": no U; the best"),
        (by_seed(5, 4.6, 4.5, spread=1), "no U, though these seeds do not exclude one"),
    ],
)
def test_the_shape_of_the_curve_is_told_from_the_numbers(losses: Losses, words: str) -> None:
    assert words in shape_of_curve("text", losses)
    assert not shape_of_curve("text", {share: losses[share] for share in (50, 100)})
    assert not shape_of_curve("text", {share: losses[share] for share in (0, 100)})


def test_a_run_gives_the_same_numbers_again() -> None:
    unit = plan(TINY)[4]
    one, other = (measure(unit, lambda *given: None) for _ in range(2))
    assert one == other and one["in tables"] > 0
