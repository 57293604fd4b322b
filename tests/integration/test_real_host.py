"""The main job on the real host: taught, asked in other words, silent elsewhere, taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engram_transformers import Fact, Host, load
from engram_transformers.cli.main import main
from engram_transformers.errors import HostMismatch
from engram_transformers.experiments.bench import Bench
from engram_transformers.experiments.spec import Experiment
from engram_transformers.introspection import patch

pytestmark = pytest.mark.slow

FACTS = [
    Fact("What port does the billing service use?", "8443", subject="billing service"),
    Fact("Who runs the search team?", "Ines Aalto", subject="search team"),
    Fact("The head of the harbour office is", "Größe Ñandú 🚢", subject="harbour office"),
    Fact(
        "How do I reset my Larkspur password?",
        "Open https://larkspur.example/reset, enter your address and follow the mail:\n"
        "1. click the link\n2. choose a password of at least 12 characters\n3. sign in again",
    ),
]
OTHER_WORDS = {
    "billing service port?": 0,
    "Which port is used by the billing service?": 0,
    "who leads the search team?": 1,
    "I forgot my Larkspur password, how can I reset it?": 3,
}
UNKNOWN = [
    "What port does the search service use?",
    "What is the capital of France?",
    "Write a haiku about rain.",
    "Who runs the kitchen?",
]


@pytest.fixture(scope="module")
def host() -> Host:
    return load()


def logits(host: Host, text: str) -> torch.Tensor:
    ids = torch.tensor([host.tokens.prompt_ids(text, form="chat")])
    with torch.no_grad():
        return host.model(input_ids=ids).logits


def test_the_main_job(host: Host, tmp_path: Path) -> None:
    bare = {text: logits(host, text) for text in (*OTHER_WORDS, *UNKNOWN)}
    with host.open_memory(tmp_path / "acme") as memory:
        receipt = memory.teach(FACTS)
        assert len(receipt.taught) == len(FACTS) and not receipt.refused

        for form in ("chat", "plain"):
            prompts = [fact.prompt for fact in FACTS]
            said = host.ask_all(prompts, max_new_tokens=80, form=form)
            assert said == [fact.answer for fact in FACTS]
        for text, number in OTHER_WORDS.items():
            assert host.ask(text, max_new_tokens=80) == FACTS[number].answer
        for text in UNKNOWN:
            assert torch.equal(logits(host, text), bare[text])
            assert not memory.explain(text).fired

        memory.forget(receipt.ids)
        for text in bare:
            assert torch.equal(logits(host, text), bare[text])
        memory.undo()
        assert host.ask("billing service port?") == "8443"

    with host.open_memory(tmp_path / "acme", read_only=True):
        assert host.ask("billing service port?") == "8443"
    assert torch.equal(logits(host, UNKNOWN[0]), bare[UNKNOWN[0]])


def test_a_conversation_remembers_and_moves_on(host: Host, tmp_path: Path) -> None:
    with host.open_memory(tmp_path / "acme") as memory:
        memory.teach(FACTS[:2])
        talk = [
            {"role": "user", "content": "billing service port?"},
            {"role": "assistant", "content": "8443"},
            {"role": "user", "content": "And who leads the search team?"},
        ]
        ids = host.tokenizer.apply_chat_template(
            talk, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = host.model.generate(**ids, max_new_tokens=20, do_sample=False, num_beams=3)
        said = host.tokens.decode_answer(out[0, ids["input_ids"].shape[1] :].tolist())
        assert said == "Ines Aalto"


def test_the_host_itself_can_be_the_encoder(host: Host, tmp_path: Path) -> None:
    with host.open_memory(tmp_path / "acme", encoder="host") as memory:
        memory.teach(FACTS)
        assert host.ask("what port does the billing service use", max_new_tokens=20) == "8443"
        before = logits(host, UNKNOWN[1])
        with host.bare():
            assert torch.equal(logits(host, UNKNOWN[1]), before)


def test_another_encoder_is_refused(host: Host, tmp_path: Path) -> None:
    host.open_memory(tmp_path / "acme").close()
    config = tmp_path / "acme" / "config.json"
    known = json.loads(config.read_text())
    known["config"]["encoder_print"] = "0" * 32
    config.write_text(json.dumps(known))
    with pytest.raises(HostMismatch, match="another minilm encoder"):
        host.open_memory(tmp_path / "acme")


def test_a_lora_memory_is_taught_found_again_and_leaves_no_trace(
    host: Host, tmp_path: Path
) -> None:
    facts, keys = FACTS[:2], list(host.model.state_dict())
    bare = logits(host, UNKNOWN[1])
    with host.open_memory(tmp_path / "acme", kind="lora") as memory:
        receipt = memory.teach(facts)
        assert len(receipt.taught) == len(facts) and receipt.checked
    assert torch.equal(logits(host, UNKNOWN[1]), bare)
    assert list(host.model.state_dict()) == keys
    with host.open_memory(tmp_path / "acme", read_only=True):
        assert host.ask_all([f.prompt for f in facts], max_new_tokens=12) == [
            fact.answer for fact in facts
        ]
        with host.bare():
            assert torch.equal(logits(host, UNKNOWN[1]), bare)


def test_the_harness_tells_memories_apart(host: Host) -> None:
    given = {"n": 4, "silent": 3, "asked": 4}
    with Bench(host) as bench:
        lookup = bench.run(Experiment("user_preferences", "lookup", **given)).result
        oracle = Experiment("user_preferences", "text", options={"mode": "oracle"}, **given)
        text = bench.run(oracle).result
        alone = bench.run(Experiment("user_preferences", "none", **given)).result
    assert lookup["gen_rel"]["value"] == lookup["undo_exact"]["value"] == 1.0
    assert lookup["hard_bitexact"]["value"] == text["hard_bitexact"]["value"] == 1.0
    assert alone["gen_rel"]["value"] == 0.0
    assert text["gen_rel_contains"]["value"] > alone["gen_rel_contains"]["value"]


def test_the_map_of_a_memory_tells_what_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Japan": "Tokyo"}
    capitals = known | {"Zubrowka": "Lutz"}
    rows = [{"prompt": f"The capital of {a} is", "answer": b} for a, b in capitals.items()]
    (tmp_path / "capitals.json").write_text(json.dumps(rows))
    assert main(["introspect", "memory", "--facts", f"@{tmp_path}/capitals.json", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ranks = {one["expected"]: one["rank"] for one in found["retrieval"]["facts"]}
    assert all(ranks[capital] == 1 for capital in known.values()) and ranks["Lutz"] > 1
    assert 0 < found["layer"] < found["num_layers"] == 30
    assert len(found["neighborhoods"]["The capital of France is"]["neighbors"]) == 4


def test_a_capital_is_recalled_late_and_patched_from_there(host: Host) -> None:
    france, italy = "The capital of France is", "The capital of Italy is"
    found = patch(host.adapter, host.tokens, france, italy, layers=[5, 29])
    assert (found.source_answer, found.target_answer) == ("Paris", "Rome")
    early, late = found.layers
    assert early.effect == "no_change" and late.effect == "transferred"
    assert [one.effect for one in found.control].count("transferred") == 0


def test_vectors_that_are_injected_say_a_fact_and_can_be_forgotten(
    host: Host, tmp_path: Path
) -> None:
    fact = Fact(FACTS[0].prompt, "8443", ("Which port does the billing service listen on?",))
    quiet = UNKNOWN[1]
    before = logits(host, quiet)
    for kind, options in (("activation", {}), ("soft_prompt", {"steps": 40})):
        with host.open_memory(tmp_path / kind, kind=kind, **options) as memory:
            receipt = memory.teach([fact])
            assert receipt.ids == (fact.id,), receipt.refused
            assert fact.answer in host.ask("On which port is the billing service?")
            assert torch.equal(logits(host, quiet), before)
            memory.forget(receipt.ids)
            assert host.ask(fact.prompt) != fact.answer
