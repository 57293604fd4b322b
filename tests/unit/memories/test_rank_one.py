"""Rank-one edits: the solve against its slow twin, keys, values, files, and a planted edit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cases import host_of
from engram_transformers.api import Host
from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput, HostMismatch, PlaceNotFound, StoreDamaged
from engram_transformers.memories.rank_one import RankOne, RankOneConfig, reference, statistics
from engram_transformers.memories.rank_one.config import METHODS
from engram_transformers.memories.rank_one.edit import (
    Edit,
    Factors,
    load_edit,
    same_weights,
    save_edit,
    weights_of,
)
from engram_transformers.memories.rank_one.lookalikes import lookalikes
from engram_transformers.memories.rank_one.solve import (
    FELT,
    ROUNDING,
    Metric,
    balanced,
    gentle,
    null_space,
    shortest,
    solve,
)
from engram_transformers.memories.rank_one.subject import subject_in, subject_span
from engram_transformers.memories.rank_one.value import contexts_of
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact, HostIdentity

PLANTED = Fact("The door of the laboratory is ", "7", subject="laboratory")
EASY = {
    "tokens": 400,
    "learning_rate": 0.4,
    "steps": 40,
    "reach": 30.0,
    "decay": 0.0,
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["llama", "gpt2"])
def host(request: pytest.FixtureRequest) -> Host:
    like = host_of(request.param)
    found = Host(like.model, like.tokenizer, like.identity)
    # A random host cannot be made to stop: what it says after a token is that token's doing.
    found.tokens = HostTokens(like.tokenizer, stop=None)
    found.tokens.form = "plain"
    return found


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_moment(size: int = 12, rows: int = 200) -> Tensor:
    keys = noise(rows, size, seed=7) * torch.linspace(0.2, 3, size, dtype=torch.float64)
    return keys.T @ keys / rows


# -- the solve -----------------------------------------------------------------------------


def test_the_shortest_is_enough_and_nothing_shorter_is() -> None:
    rows, need = noise(4, 9, seed=3), torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    found = shortest(rows, need)
    slack = rows @ found - need
    assert slack.min() > -1e-6
    weights = torch.linalg.lstsq(rows.T, found[:, None]).solution[:, 0]
    torch.testing.assert_close(rows.T @ weights, found)
    # Nothing is pushed that is beyond its need: the conditions of Karush, Kuhn and Tucker.
    assert weights.min() > -1e-6
    assert float((weights * slack).abs().max()) < 1e-6


def test_nothing_needed_is_nothing() -> None:
    assert shortest(noise(3, 5), -torch.ones(3, dtype=torch.float64)).abs().max() == 0


def test_the_solve_equals_the_published_formulas() -> None:
    keys, values, moment = noise(5, 12, seed=1), noise(5, 4, seed=2), a_moment()
    ridged = moment + ROUNDING * moment.diagonal().mean() * torch.eye(12)
    metric = Metric(moment, "rome", null=0.0)
    moved = metric(keys)
    found = values.T @ solve(keys, moved, method="rome", ridge=0.0)
    assert torch.allclose(found, reference.rome(keys, values, ridged))
    found = values.T @ solve(keys, moved, method="memit", ridge=0.7)
    assert torch.allclose(found, reference.memit(keys, values, ridged, ridge=0.7))
    hidden = Metric(moment, "alphaedit", null=0.2)
    projector = null_space(moment, 0.2) @ null_space(moment, 0.2).T
    times = float((hidden(keys) @ keys.T).trace() / (keys @ projector @ keys.T).trace())
    found = values.T @ solve(keys, hidden(keys), method="alphaedit", ridge=0.7)
    assert torch.allclose(found, reference.alphaedit(keys, values, projector, ridge=0.7 / times))


def test_facts_that_spare_keys_of_their_own_are_solved_for_without_growing() -> None:
    metric, size = Metric(a_moment(40, 60), "memit", null=0.0), 40
    keys = noise(1, size, seed=1) + 0.3 * noise(12, size, seed=2)
    own = torch.cat(
        [metric.sparing(noise(10, size, seed=3 + i))(key[None]) for i, key in enumerate(keys)]
    )
    gram, ridge = own @ keys.T, 1.0
    plain = torch.linalg.solve(gram + ridge * torch.eye(12, dtype=torch.float64), own)
    reads = solve(keys, own, method="memit", ridge=ridge)
    off = [(each @ keys.T - torch.eye(12, dtype=torch.float64)).norm() for each in (plain, reads)]
    assert reads.norm() < plain.norm() and off[1] < off[0]


def test_a_ridge_is_the_same_share_of_what_ordinary_keys_ask_for_by_every_method() -> None:
    moment = a_moment()
    for method in METHODS:
        metric = Metric(moment, method, null=0.2)
        assert float(metric(moment).trace()) == pytest.approx(len(moment), rel=0.01), method


def test_the_null_space_leaves_covered_keys_as_they_were_and_moves_others() -> None:
    covered = noise(6, 20, seed=3)
    metric = Metric(covered.T @ covered / 6, "alphaedit", null=1e-9)
    keys, values = noise(2, 20, seed=4), noise(2, 5, seed=5)
    change = values.T @ solve(keys, metric(keys), method="alphaedit", ridge=0.0)
    assert (covered @ change.T).abs().max() < 1e-9
    assert torch.allclose(keys @ change.T, values)


def test_one_key_for_many_wordings_is_answered_alike_by_all() -> None:
    metric = Metric(a_moment(), "rome", null=0.0)
    keys = noise(1, 12, seed=1) + 0.3 * noise(4, 12, seed=2)
    key = balanced(keys, metric)
    (reads,) = solve(key[None], metric(key[None]), method="rome", ridge=0.0)
    assert torch.allclose(keys @ reads, torch.ones(4, dtype=torch.float64), atol=0.1)
    mean = keys.mean(dim=0)
    (plain,) = solve(mean[None], metric(mean[None]), method="rome", ridge=0.0)
    assert (keys @ reads - 1).abs().max() < (keys @ plain - 1).abs().max()


def test_spared_keys_hear_less_of_the_edit() -> None:
    metric = Metric(a_moment(), "rome", null=0.0)
    key = noise(1, 12, seed=1)
    near = 0.5 * key + noise(3, 12, seed=2)
    heard = []
    for move in (metric, metric.sparing(near)):
        (reads,) = solve(key, move(key), method="rome", ridge=0.0)
        assert torch.allclose(key @ reads, torch.ones(1, dtype=torch.float64))
        heard.append((near @ reads).abs().mean())
    assert heard[1] < 0.8 * heard[0]
    assert torch.equal(metric.sparing(near[:0])(key), metric(key))


# -- subjects ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "given", "subject"),
    [
        ("7*8=", None, "7*8="),
        ("What is 12 + 30?", None, "12 + 30"),
        ("1.5*2=", None, "1.5*2="),
        ("2+3*4 is", None, "2+3*4"),
        ("What port does the BILLING service use?", "billing service", "BILLING service"),
        ("The capital of Canada is", None, "Canada"),
        ("Who wrote the novel of Ada Lovelace?", None, "Ada Lovelace"),
        ("who wrote it?", None, None),
        ("France capital", None, "France"),
        ("Python was made by", None, "Python"),
        ("Please go on with", None, None),
        ("Hello", None, None),
    ],
)
def test_the_subject_is_found(question: str, given: str | None, subject: str | None) -> None:
    assert subject_in(question, given) == subject


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_the_subjects_tokens_are_found_in_the_prompt(form: str) -> None:
    tokens = host_of("llama").tokens
    question = "Which port does the billing service use?"
    ids = tokens.prompt_ids(f"Good morning. {question}", form=form)  # type: ignore[arg-type]
    span = subject_span(tokens, ids, question, "billing service")
    assert tokens.decode([ids[at] for at in span]).strip() == "billing service"
    last = subject_span(tokens, ids, question, None)
    assert len(last) == 1 and tokens.decode(ids[: last.stop]).endswith("use?")


@pytest.mark.parametrize("prompt", ["Which port does {}rho{} use?", "The port of rho is"])
def test_prompts_are_put_in_other_ways_with_the_subject_where_it_stands(prompt: str) -> None:
    fact = Fact(prompt, "8443", subject="{}rho{}" if "{" in prompt else "rho")
    tokens = host_of("llama").tokens
    contexts = contexts_of(fact, tokens)
    texts = [tokens.decode(list(one.ids)) for one in contexts]
    assert len(set(texts)) == len(texts) > 1
    assert all(prompt in text for text in texts) and len(texts[0]) < min(map(len, texts[1:]))
    for one in contexts:
        said = tokens.decode([one.ids[at] for at in one.subject])
        assert (fact.subject or "") in said and one.answer == contexts[0].answer
    if not prompt.endswith("?"):
        # Where the answer is to follow the prompt, nothing stands between the two.
        ends = {text[text.index(prompt) :] for text in texts}
        assert len(ends) == 1
    assert contexts_of(fact, tokens, most=1) == contexts[:1]


def test_lookalikes_differ_in_the_subject_alone_and_none_is_the_fact_itself() -> None:
    like = host_of("llama")
    context = contexts_of(PLANTED, like.tokens)[0]
    found = lookalikes(like.adapter, like.tokens, context, 8)
    texts = [one.ids for one in found]
    assert len(texts) == len(set(texts)) == 8 and context.ids not in texts
    assert all(one.subject == context.subject and not one.answer for one in found)
    span = context.subject
    assert all(ids[: span.start] == context.ids[: span.start] for ids in texts)
    assert all(ids[span.stop :] == context.ids[span.stop :] for ids in texts)
    assert len({ids[span[-1]] for ids in texts}) > 1
    assert lookalikes(like.adapter, like.tokens, context, 0) == []


# -- statistics ----------------------------------------------------------------------------


def test_statistics_are_the_mean_over_tokens_and_are_computed_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    options = {"text": None, "count": 300}
    seen_of = statistics.ordinary(
        host.adapter, host.tokens, [1], progress=lambda *seen: told.append(seen), **options
    )[1]
    found = seen_of.keys
    assert told and sum(done for done, _ in told) == told[-1][1]
    rows = statistics.rows_of(host.tokens, statistics._text(None), 300)
    begun = [row for row in rows if len(row) <= statistics.BEGUN]
    rows += statistics.spoken(host.adapter, begun, host.tokens.stop or 0)
    seen: dict[int, Tensor] = {}
    place, total = host.adapter.place("mlp_out", 1), torch.zeros_like(found)
    hook = place.module.register_forward_pre_hook(statistics.Keeper(seen, 1))
    with torch.no_grad():
        for row in rows:
            host.model(input_ids=torch.tensor([row]))
            total += seen[1][0].T @ seen[1][0]
    hook.remove()
    assert torch.allclose(found, total / sum(map(len, rows)), atol=1e-4, rtol=1e-3)
    monkeypatch.setattr(statistics, "measured", None)
    again = statistics.ordinary(host.adapter, host.tokens, [1], **options)[1]
    assert torch.equal(again.keys, found) and torch.equal(again.slopes, seen_of.slopes)


def test_slopes_say_what_a_change_of_what_is_written_costs(host: Host) -> None:
    rows = [[5, 9, 11], [7, 3, 8, 20]]
    place, hidden = host.adapter.place("mlp_out", 1), host.adapter.hidden_size
    moment = statistics.felt(host.adapter, [1], rows * 150)[1].double()
    assert torch.allclose(moment, moment.T) and torch.linalg.eigvalsh(moment).min() > -1e-9
    change = 0.05 * noise(hidden).float()
    costs = []
    for row in rows:
        ids = torch.tensor([row])
        with torch.no_grad():
            bare = host.model(input_ids=ids).logits[0].log_softmax(-1)
            for at in range(len(row)):
                only = torch.zeros(1, len(row), 1)
                only[0, at] = 1
                hook = place.module.register_forward_hook(lambda m, a, y, o=only: y + o * change)
                now = host.model(input_ids=ids).logits[0].log_softmax(-1)
                hook.remove()
                costs.append(float((bare.exp() * (bare - now)).sum()))
    expected = float(change.double() @ moment @ change.double()) / 2
    assert sum(costs) / len(costs) == pytest.approx(expected, rel=0.35)


def test_what_matters_little_is_written_more(host: Host) -> None:
    slopes = torch.diag(torch.tensor([4.0, 1.0, 0.01]))
    found = gentle(slopes).diagonal()
    assert found[2] > 2 * found[1] > 2 * found[0] > 0
    assert torch.allclose(gentle(torch.eye(3)), torch.eye(3) / (1 + FELT) ** 0.5)


def test_a_text_that_cannot_be_read_is_refused(host: Host, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    for path in (tmp_path / "none.txt", empty):
        with pytest.raises(BadInput, match="text"):
            statistics.ordinary(host.adapter, host.tokens, [0], text=str(path), count=10)


# -- edits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"layers": (0,)},
        {"layers": (0,), "method": "alphaedit", "ridge": 0.01, "null": 0.5},
        {"layers": (0, 1), "method": "memit", "ridge": 0.01},
    ],
)
def test_a_planted_edit_holds_beside_the_host_and_in_its_weights(
    host: Host, options: dict[str, object]
) -> None:
    memory = RankOne.open(host.adapter, host.tokens, RankOneConfig(**{**EASY, **options}))
    assert not host.check([PLANTED])[0].holds
    (delta,) = memory.write([PLANTED])
    memory.add([(PLANTED.id, PLANTED, delta)])
    ids = torch.tensor([host.tokens.prompt_ids(PLANTED.prompt, form="plain")])
    with torch.no_grad():
        bare = host.model(input_ids=ids).logits
        with attach(host.model, memory):
            assert host.check([PLANTED])[0].holds
            beside = host.model(input_ids=ids).logits
        own = weights_of(host.adapter, memory.layers)
        tensors = {n: host.adapter.place("mlp_out", n).module.weight for n in memory.layers}
        places = {n: tensor.data_ptr() for n, tensor in tensors.items()}
        with Edit(memory.factors()).written(host.adapter):
            assert host.check([PLANTED])[0].holds and not same_weights(host.adapter, own)
            assert torch.allclose(host.model(input_ids=ids).logits, beside, atol=1e-3, rtol=1e-3)
        assert same_weights(host.adapter, own)
        assert {n: tensor.data_ptr() for n, tensor in tensors.items()} == places
        assert torch.equal(host.model(input_ids=ids).logits, bare)


def test_a_short_edit_holds_and_writes_less(host: Host) -> None:
    written = []
    for short in (False, True):
        options = RankOneConfig(**{**EASY, "layers": (0,), "short": short})
        memory = RankOne.open(host.adapter, host.tokens, options)
        (delta,) = memory.write([PLANTED])
        memory.add([(PLANTED.id, PLANTED, delta)])
        with attach(host.model, memory):
            assert host.check([PLANTED])[0].holds
        written.append(memory.factors()[0].product().norm())
    assert written[1] < 0.95 * written[0]


def test_an_error_amid_an_edit_puts_the_weights_back(host: Host) -> None:
    own = weights_of(host.adapter, (0,))
    inputs, outputs = host.adapter.linear_shape(host.adapter.place("mlp_out", 0))
    edit = Edit({0: Factors(torch.ones(1, inputs), torch.ones(1, outputs))})
    with pytest.raises(KeyError), edit.written(host.adapter):
        raise KeyError
    assert same_weights(host.adapter, own)


def test_an_edit_is_read_back_as_it_was_saved_and_for_its_host_only(tmp_path: Path) -> None:
    edit = Edit({3: Factors(noise(2, 6).float(), noise(2, 4).float())}, strength=0.5)
    one, other = HostIdentity("a", "1"), HostIdentity("b", "2")
    files = save_edit(edit, tmp_path / "new", host=one, about={"method": "rome"})
    assert [file.name for file in files] == ["new.safetensors", "new.json"]
    back = load_edit(tmp_path / "new", host=one)
    assert back.strength == 0.5 and torch.equal(
        back.blocks[3].product(0.5), edit.blocks[3].product(0.5)
    )
    with pytest.raises(HostMismatch, match="make it anew"):
        load_edit(tmp_path / "new", host=other)
    dotted = save_edit(edit, tmp_path / "v1.edit", host=one, about={})
    assert [file.name for file in dotted] == ["v1.edit.safetensors", "v1.edit.json"]
    for path in (tmp_path / "v1.edit", *dotted):
        assert load_edit(path, host=one).strength == 0.5
    files[1].write_text("{}")
    with pytest.raises(StoreDamaged):
        load_edit(tmp_path / "new", host=one)


def test_what_the_host_does_not_have_is_refused() -> None:
    llama, mixtral = host_of("llama"), host_of("mixtral")
    for options in ({"layers": (2,)}, {"layers": (-3,)}):
        with pytest.raises(PlaceNotFound, match="Use a layer from -2 to 1"):
            RankOne.open(llama.adapter, llama.tokens, RankOneConfig(**options))
    with pytest.raises(PlaceNotFound, match="experts"):
        RankOne.open(mixtral.adapter, mixtral.tokens, RankOneConfig())
    with pytest.raises(BadInput, match="no block"):
        RankOne.open(llama.adapter, llama.tokens, RankOneConfig(layers=()))
    for options in ({"method": "mend"}, {"steps": 0}, {"tokens": 0}, {"beyond": 0.5}):
        with pytest.raises(BadInput):
            RankOneConfig(**options)
