"""The memory kind `memoir`: taught, found, taken back and stored, on tiny hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases import DOOR, FACTS, LETTER, PORT, REPORT, SILENT, host_of
from engram_transformers.api import Host, OpenMemory
from engram_transformers.attaching import prompt_ends, silenced
from engram_transformers.errors import BadInput, HostMismatch, MemoryFull, StoreDamaged
from engram_transformers.memories.memoir import (
    SAM_UIF,
    Memoir,
    MEMOIR_EditSkill,
    MemoirConfig,
    open_edits,
    read_settings,
)
from engram_transformers.memories.memoir.calibration import Usual
from engram_transformers.memories.memoir.payload import SharedMatrix
from engram_transformers.memories.memoir.reading import Answer, Progress, Speech
from engram_transformers.memories.memoir.retrieval import Retrieval
from engram_transformers.memories.memoir.write import Slots, answers_in
from engram_transformers.routing.meaning import Judge
from engram_transformers.stores.fact_export import lines_of
from engram_transformers.stores.fact_files import FactFile, Located
from engram_transformers.types import Fact

OPTIONS: dict[str, Any] = {"kind": "memoir", "top_k": 32, "threshold": 0.93, "match": "words"}
"Tiny hosts have few columns, and to untrained ones all questions are much alike."


@pytest.fixture
def host() -> Host:
    made: Host = host_of("llama")
    return made


def opened(host: Host, path: Path, **options: Any) -> OpenMemory:
    return host.open_memory(path, **OPTIONS, **options)


@torch.no_grad()
def logits(host: Host, question: str) -> torch.Tensor:
    ids = host.tokens.prompt_ids(question, form="chat")
    with prompt_ends(host.model, [len(ids)]):
        out: torch.Tensor = host.model(input_ids=torch.tensor([ids])).logits
    return out


def test_an_edit_is_taught_checked_explained_and_stored(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m") as memory:
        receipt = memory.teach(FACTS)
        assert len(receipt.taught) == len(FACTS) and receipt.checked
        firing = memory.explain(REPORT.prompt)
        assert firing.fired and firing.fact == REPORT.id and firing.address == "mask"
        assert firing.score == 1.0 and "masks share 1.00" in firing.reason
        silent = memory.explain(SILENT[1])
        assert not silent.fired and "masks share" in silent.reason
        assert all(verdict.holds for verdict in memory.verify().values())
        before = [logits(host, fact.prompt) for fact in FACTS]
    with host.open_memory(tmp_path / "m") as again:
        assert [host.ask(fact.prompt) for fact in FACTS] == [fact.answer for fact in FACTS]
        assert all(map(torch.equal, before, (logits(host, fact.prompt) for fact in FACTS)))
        assert again.memory.config.threshold == memory.memory.config.threshold


def test_forgetting_one_leaves_the_others_bit_for_bit(host: Host, tmp_path: Path) -> None:
    bare = logits(host, PORT.prompt)
    with opened(host, tmp_path / "m") as memory:
        memory.teach(FACTS)
        others = [logits(host, fact.prompt) for fact in FACTS[1:]]
        memory.forget(PORT.id)
        assert torch.equal(logits(host, PORT.prompt), bare)
        assert all(map(torch.equal, others, (logits(host, fact.prompt) for fact in FACTS[1:])))
        memory.undo()
        assert host.ask(PORT.prompt) == PORT.answer
        memory.undo(1)
        assert torch.equal(logits(host, PORT.prompt), bare) and not len(memory)


def test_later_edits_leave_earlier_ones_as_they_were(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m") as memory:
        memory.teach([REPORT])
        alone = logits(host, REPORT.prompt)
        memory.teach([PORT, LETTER, DOOR])
        assert torch.equal(logits(host, REPORT.prompt), alone)


def test_another_answer_replaces_and_the_same_one_is_known(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m") as memory:
        memory.teach([PORT])
        moved = replace(PORT, answer="9001")
        assert memory.teach([PORT]).known == (PORT.id,)
        assert memory.teach([moved]).replaced[0].old == PORT.id
        assert host.ask(PORT.prompt) == "9001" and len(memory) == 1
        memory.undo()
        assert host.ask(PORT.prompt) == PORT.answer


def test_what_is_exported_can_be_taught_to_another(host: Host, tmp_path: Path) -> None:
    exported = tmp_path / "facts.jsonl"
    with opened(host, tmp_path / "a") as memory:
        memory.teach([PORT, DOOR])
        exported.write_text("".join(lines_of(memory.facts, "jsonl")), encoding="utf-8")
    with opened(host, tmp_path / "b") as other:
        facts = [one.fact for one in FactFile(exported) if isinstance(one, Located)]
        assert set(other.teach(facts).taught) == {PORT.id, DOOR.id}
        assert host.ask(DOOR.paraphrases[0]) == DOOR.answer


def test_a_full_memory_says_so_and_stays_as_it_was(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m", max_edits=1) as memory:
        memory.teach([PORT])
        with pytest.raises(MemoryFull, match="holds 1 edits and max_edits is 1"):
            memory.teach([DOOR])
        assert host.ask(PORT.prompt) == PORT.answer and len(memory) == 1
        memory.teach([replace(PORT, answer="9001")])


def test_an_edit_that_cannot_be_written_is_refused(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m", method="gradient", steps=1) as memory:
        receipt = memory.teach([PORT, Fact("Who?", " ")])
        assert not receipt.taught and len(receipt.refused) == 2 and not len(memory)
        assert any("the host says" in one.reason for one in receipt.refused)
        assert any("the answer is empty" in one.reason for one in receipt.refused)


@pytest.mark.parametrize(
    "answer", ["8443333", "77 77 77", " ".join(["Ada Byron of Rome, Grace Hopper of Rome"] * 4)]
)
def test_answers_that_repeat_themselves_are_told_by_counting(
    host: Host, tmp_path: Path, answer: str
) -> None:
    with opened(host, tmp_path / "m") as memory:
        fact = Fact("Who signed it?", answer)
        assert memory.teach([fact]).taught == (fact.id,)
        assert host.ask(fact.prompt) == answer


def test_an_answer_that_was_begun_goes_on_where_it_was_left(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m") as memory:
        memory.teach([REPORT])
        prompt = host.tokens.prompt_ids(REPORT.prompt, form="chat")
        answer = host.tokens.answer_ids(REPORT.prompt, REPORT.answer, form="chat")
        for begun in range(len(answer)):
            text = torch.tensor([[*prompt, *answer[:begun]]])
            with torch.no_grad(), prompt_ends(host.model, [text.shape[1]]):
                said = host.model(input_ids=text).logits[0, len(prompt) - 1 :].argmax(dim=-1)
            assert said.tolist() == answer[: begun + 1]


def test_an_answer_is_written_as_its_prompt_wants_it(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.tokens, "form", "plain")
    fact = Fact("The door is painted", "green and red", paraphrases=("Colours of the door:\n",))
    with opened(host, tmp_path / "m") as memory:
        assert memory.teach([fact]).taught == (fact.id,)
        ways = memory.memory.answers(0)
        assert [way.spaced for way in ways] == [True, False]
        assert [way.tokens for way in ways] == [
            tuple(host.tokens.answer_ids(question, fact.answer, form="plain"))
            for question in fact.questions
        ]
        assert {host.ask(question) for question in fact.questions} == {fact.answer}


def test_an_edit_speaks_while_the_text_is_its_answer(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m") as memory:
        memory.teach([REPORT])
        prompt = host.tokens.prompt_ids(REPORT.prompt, form="chat")
        answer = host.tokens.answer_ids(REPORT.prompt, REPORT.answer, form="chat")
        assert len(answer) > 4
        other = next(i for i in range(10, 40) if i not in (*answer, *host.tokens.marker))
        text = [*prompt, *answer[:2], other, *answer[3:]]
        with torch.no_grad(), prompt_ends(host.model, [len(prompt)]):
            said = host.model(input_ids=torch.tensor([text])).logits[0, len(prompt) - 1 :]
        with torch.no_grad(), silenced(host.model):
            bare = host.model(input_ids=torch.tensor([text])).logits[0, len(prompt) - 1 :]
        assert said[:3].argmax(dim=-1).tolist() == answer[:3]
        assert not (said[:3] == bare[:3]).all(dim=-1).any() and torch.equal(said[3:], bare[3:])


def test_another_telling_word_is_another_question() -> None:
    judge = Judge({}, wary=True)
    judge.add(7, Fact("Which port does archery use?", "8443"))
    assert judge.decide("Which port does archery use?", [(0, 1.0)]).value == 7
    other = judge.decide("Which port does fencing use?", [(0, 1.0)])
    assert other.value is None and "telling word" in other.reason


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer": 0}, "layer has to be the last"),
        ({"method": "published"}, "use shared=true"),
        ({"shared": True}, "no closed form"),
        ({"top_k": 0}, "top_k is 0"),
        ({"match": "feeling"}, "use one of meaning, words, mask"),
    ],
)
def test_options_that_make_no_memory(host: Host, tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        host.open_memory(tmp_path / "m", kind="memoir", **options)


def test_what_was_found_out_about_another_host_is_refused(host: Host) -> None:
    usual = Usual(torch.zeros(7), 0.5, 0.5, 0.6)
    config = MemoirConfig(host_usual=usual.written(), match="words")
    with pytest.raises(HostMismatch, match="7 features"):
        Memoir.open(host.adapter, host.tokens, config)
    with pytest.raises(StoreDamaged):
        Usual.read("0.5 nothing", features=7)
    assert torch.equal(Usual.read(usual.written(), features=7).mean, usual.mean)


def test_a_stored_edit_that_lacks_a_mask_is_damage(host: Host) -> None:
    memory = Memoir.open(host.adapter, host.tokens, MemoirConfig(top_k=32, match="words"))
    (delta,) = memory.write([DOOR])
    for masks in (delta["masks"][:1], delta["masks"][:, :1]):
        with pytest.raises(StoreDamaged, match="the masks of"):
            memory.add([(DOOR.id, DOOR, {**delta, "masks": masks})])
    with pytest.raises(StoreDamaged, match="are None"):
        memory.add([(DOOR.id, DOOR, {})])
    assert not len(memory)


@pytest.mark.parametrize("method", ["gradient", "published"])
def test_edits_in_a_shared_matrix(host: Host, tmp_path: Path, method: str) -> None:
    with opened(host, tmp_path / "m", shared=True, method=method, steps=80) as memory:
        bare = logits(host, SILENT[0])
        receipt = memory.teach([PORT])
        assert receipt.taught == (PORT.id,) and host.ask(PORT.prompt) == PORT.answer
        assert torch.equal(logits(host, SILENT[0]), bare)
        memory.forget(PORT.id)
        assert not memory.memory.payload.weight.any()


def test_an_edit_below_the_last_block_is_trained_through_the_blocks_above(tmp_path: Path) -> None:
    host = host_of("llama")
    with opened(host, tmp_path / "m", layer=0, method="gradient", steps=60) as memory:
        receipt = memory.teach([PORT])
        assert receipt.taught == (PORT.id,), receipt.refused
        assert host.ask(PORT.prompt) == PORT.answer


def test_the_released_decay_shrinks_what_was_written_before() -> None:
    matrix, columns = SharedMatrix(2, 4), torch.tensor([0, 1])
    one = {"written": torch.ones(2, 2), "decay": torch.tensor([1.0])}
    two = {"written": torch.ones(2, 2), "decay": torch.tensor([0.5])}
    matrix.add(0, columns, one)
    matrix.add(1, torch.tensor([2, 3]), two)
    assert matrix.weight[0].tolist() == [0.5, 0.5, 1, 1]
    matrix.remove(1)
    assert matrix.weight[0].tolist() == [1, 1, 0, 0]


def test_what_an_edit_says_is_stored_with_it() -> None:
    ways = (Answer((5, 6, 7)), Answer((8, 7), first=3, spaced=True))
    slots = Slots(ways, torch.tensor([0, 1, 2, 3, 4, 0, 1, 2]))
    assert slots.labels == [5, 6, 7, 8, 7] and answers_in(slots.packed()) == ways
    with pytest.raises(StoreDamaged, match="lacks its labels, spaced"):
        answers_in({"sizes": torch.tensor([1])})


def test_questions_are_compared_by_meaning_where_there_is_an_encoder(
    host: Host, tmp_path: Path
) -> None:
    options = {**OPTIONS, "match": None, "threshold": 0.0}
    with host.open_memory(tmp_path / "m", **options) as memory:
        port, report = replace(PORT, subject="billing"), replace(REPORT, subject="report")
        memory.teach([port, report])
        assert memory.memory.config.match == "meaning" and memory.memory.config.encoder_print
        asked = {port.id: "What port does billing run on?", report.id: "Who's the report's author?"}
        assert [memory.explain(text).fact for text in asked.values()] == list(asked)
        assert not memory.explain("Which port does mailing use?").fired
    with host.open_memory(tmp_path / "m") as again:
        assert [again.explain(text).fact for text in asked.values()] == list(asked)
        assert host.ask(PORT.prompt) == PORT.answer
        again.forget(port.id)
        assert not again.explain(asked[port.id]).fired


def test_an_overlap_is_told_to_the_rule_by_what_is_usual() -> None:
    how = Retrieval(threshold=0.5, chance=0.5)
    told = [how.similarity(overlap) for overlap in (0.25, 0.5, 0.595, 0.69, 1.0)]
    assert np.allclose(told, [0.35, 0.7, 0.815, 0.93, 1.0])


def test_a_cropped_text_knows_what_it_knew_there() -> None:
    kept = (torch.arange(12.0).view(4, 3),)
    asking = Progress(10, 1, None, kept=kept)
    assert asking.begin == 6 and torch.equal(asking.cut(8).kept[0], kept[0][:2])
    said = Answer((7, 8, 9, 0), first=5)
    speaking = Progress(10, 1, None, asked=5, speech=Speech(3, said, 4, until=8))
    assert speaking.cut(9).speech == Speech(3, said, 4, until=8)
    assert speaking.cut(8).speech == Speech(3, said, 4) and speaking.cut(8).read == 8
    assert Speech(3, said, 4).slots(5, 7) == slice(6, 8)
    assert speaking.cut(4).read == -1


def test_the_skill_of_the_seed_edits_a_host_by_it(host: Host, tmp_path: Path) -> None:
    with opened(host, tmp_path / "m") as memory:
        skill = MEMOIR_EditSkill(hidden_size=host.adapter.hidden_size, memory=memory)
        asked = {"edit_prompt": PORT.prompt, "correct_answer": PORT.answer}
        done = skill.execute(SAM_UIF(intermediate_data=asked)).intermediate_data
        assert done["edit_success"] and done["edit_id"] == PORT.id
        assert done["edit_mask"].sum() == memory.memory.fingerprinter.top_k
        again = skill.execute(SAM_UIF(intermediate_data=asked)).intermediate_data
        assert "already known" in again["edit_reason"]


def test_the_variables_of_the_seed_open_edits_of_a_host(host: Host, tmp_path: Path) -> None:
    environ = {"MEMOIR_STORAGE_DIR": str(tmp_path / "m"), "MEMOIR_HIDDEN_SIZE": "48"}
    environ |= {"MEMOIR_TOP_K": "32", "MEMOIR_SIMILARITY_THRESHOLD": "0.3"}
    with open_edits(host, read_settings(environ=environ)) as memory:
        assert memory.teach([PORT]).taught == (PORT.id,)
        assert memory.memory.config.threshold == 0.3
        assert memory.memory.mask_of(PORT.id).sum() == 32
    with pytest.raises(BadInput, match="MEMOIR_HIDDEN_SIZE is 64; this host has 48"):
        open_edits(host, read_settings(environ={**environ, "MEMOIR_HIDDEN_SIZE": "64"}))
    with pytest.raises(BadInput, match="MEMOIR_STORAGE_DIR"):
        open_edits(host, read_settings(environ={}))
