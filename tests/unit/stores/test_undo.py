import pytest
import torch

from engram_transformers.errors import BadInput
from engram_transformers.stores import Directory
from engram_transformers.stores.records import undone
from engram_transformers.types import Fact


def take_back(store: Directory, write: int | None = None) -> int:
    found = store.inverse(write)
    return store.commit("undo", add=found.add, remove=found.remove, undoes=found.undoes)


def answers(store: Directory) -> set[str]:
    return {each.fact.answer for each in store.facts(deltas=False)}


def teach(store: Directory, answer: str, *, prompt: str = "", remove: tuple[str, ...] = ()) -> int:
    fact = Fact(prompt or f"what is {answer}?", answer)
    ids = [Fact(fact.prompt, old).id for old in remove]
    return store.commit("teach", add=[(fact, {"x": torch.ones(1)})], remove=ids)


def forget(store: Directory, answer: str) -> int:
    return store.commit("forget", remove=[Fact(f"what is {answer}?", answer).id])


def test_undoing_teaches_and_forgets_back_bit_for_bit(store: Directory, batch, same_bits) -> None:
    facts = batch(20)
    store.commit("teach", add=facts)
    store.commit("forget", remove=[fact.id for fact, _ in facts[5:15]])
    take_back(store)
    back = {each.id: each for each in store.facts()}
    for fact, delta in facts:
        assert back[fact.id].fact == fact
        same_bits(delta, back[fact.id].delta)
    take_back(store)
    assert store.facts() == []
    with pytest.raises(BadInput, match="nothing to undo"):
        store.inverse()


def test_undoing_a_replacement_restores_the_old_delta(store: Directory, same_bits) -> None:
    old = Fact("p", "a", ["q"]), {"x": torch.randn(7), "nan": torch.full((2,), float("nan"))}
    store.commit("teach", add=[old])
    store.commit("teach", add=[(Fact("p", "b"), {"x": torch.randn(7)})], remove=[old[0].id])
    found = store.inverse()
    assert (found.undoes, found.remove) == (2, (Fact("p", "b").id,))
    take_back(store)
    [stored] = store.facts()
    assert stored.fact == old[0]
    same_bits(old[1], stored.delta)


def test_undoing_new_paraphrases_of_the_same_fact_restores_the_old_ones(store: Directory) -> None:
    for paraphrases in (["old"], ["new"]):
        fact = Fact("p", "a", paraphrases)
        there = [each.id for each in store.facts()]
        store.commit("teach", add=[(fact, {"x": torch.ones(1)})], remove=there)
    take_back(store)
    assert store.facts()[0].fact.paraphrases == ("old",)


def test_undoing_twice_goes_further_back(store: Directory) -> None:
    for answer in "abc":
        teach(store, answer)
    take_back(store)
    take_back(store)
    assert answers(store) == {"a"}
    assert [write.undone for write in store.writes()] == [False, True, True, False, False]


def test_an_undo_can_be_undone(store: Directory) -> None:
    teach(store, "a")
    second = teach(store, "b")
    undo = take_back(store)
    redo = take_back(store, undo)
    assert answers(store) == {"a", "b"}
    assert store.inverse().undoes == second
    assert [w.number for w in store.writes() if w.undone] == [undo]
    assert store.writes()[-1].undoes == undo
    take_back(store, redo)
    assert answers(store) == {"a"}


def test_an_older_write_can_be_undone_if_nothing_built_on_it(store: Directory) -> None:
    first = teach(store, "a")
    teach(store, "b")
    take_back(store, first)
    assert answers(store) == {"b"}
    with pytest.raises(BadInput, match="already undone"):
        store.inverse(first)
    with pytest.raises(BadInput, match="no write 9; the last one is 3"):
        store.inverse(9)


def test_what_was_changed_later_is_not_undone(store: Directory) -> None:
    first = teach(store, "a", prompt="p")
    teach(store, "b", prompt="p", remove=("a",))
    with pytest.raises(BadInput, match="write 2 changed fact"):
        store.inverse(first)
    take_back(store)
    take_back(store, first)
    assert answers(store) == set()


def test_two_answers_never_come_to_coexist(store: Directory) -> None:
    teach(store, "a", prompt="p")
    second = store.commit("forget", remove=[Fact("p", "a").id])
    teach(store, "b", prompt="p ")
    with pytest.raises(BadInput, match="write 3 changed fact"):
        store.inverse(second)


def test_a_fact_that_was_taught_again_is_not_brought_back_twice(store: Directory) -> None:
    teach(store, "a")
    second = forget(store, "a")
    teach(store, "a")
    with pytest.raises(BadInput, match="write 3 changed fact"):
        store.inverse(second)


def test_what_coexisted_before_may_coexist_again(store: Directory) -> None:
    pair = [Fact(f"p{n}", f"a{n}", subject="s", relation="r") for n in (1, 2)]
    store.commit("teach", add=[(fact, {}) for fact in pair])
    second = store.commit("forget", remove=[pair[0].id])
    store.commit("forget", remove=[pair[1].id])
    take_back(store)
    take_back(store, second)
    assert answers(store) == {"a1", "a2"}


def test_a_write_cannot_be_recorded_as_undone_twice(store: Directory) -> None:
    teach(store, "a")
    take_back(store)
    for number in (1, 7):
        with pytest.raises(BadInput, match=f"write {number} cannot be undone"):
            store.commit("undo", undoes=number)


def test_undone_follows_chains() -> None:
    assert undone([]) == set()
    assert undone([(3, 1)]) == {1}
    assert undone([(3, 1), (4, 3)]) == {3}
    assert undone([(3, 1), (4, 3), (5, 4)]) == {1, 4}
