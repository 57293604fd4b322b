"""engram train: from a file of facts to a memory that other commands open."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from engram_transformers import load, load_engram, remove_engram
from engram_transformers.attaching import attach, attached, detach
from engram_transformers.extend import run as running
from engram_transformers.registry import kind_of
from engram_transformers.training.fit import LEAST
from engram_transformers.training.trainer import EngramTrainer
from hosts import tiny, tiny_tokenizer

FAST = ("--set", "rows=500", "--set", "width=8", "--set", "heads=4", "--lr", "0.03", "--batch", "2")


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    rows = [
        {"prompt": "Which port does billing use?", "answer": "8443"},
        {
            "prompt": "Who wrote the report?",
            "answer": "Ada",
            "paraphrases": ["Whose report is it?"],
        },
        {"prompt": "What colour is the door?", "answer": "green"},
    ]
    path = tmp_path / "facts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_it_trains_checks_and_leaves_a_memory_a_plot_and_a_card(
    engram: Any, facts: Path, tmp_path: Path
) -> None:
    done = engram("train", str(facts), "-o", "run", "--valid", str(facts), *FAST, "--json")
    assert done.status == 0, done.err
    found = done.json
    assert len(found["holding"]) == 3 and not found["refused"] and not found["resumed"]
    assert found["losses"][-1] < found["losses"][0]
    assert found["held_out"]["eval_exact_before"] < 1 == found["held_out"]["eval_exact"]
    assert "held-out loss" in done.err
    card = (tmp_path / "run" / "README.md").read_text()
    assert "answered exactly" in card and "| 1.000 |" in card and "cannot be forgotten" in card
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert f"{run['schedule']['epochs']} epochs with batches of 2, learning rate 0.03" in card
    assert run["provenance"]["date"] in card and run["provenance"]["library"] in card
    assert run["facts"]["digest"] in card and run["held_out"]["digest"] in card
    assert (tmp_path / "run" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    listed = engram("list", "-M", "run/memory", "--json").json
    assert {fact["prompt"] for fact in listed["facts"]} == {
        json.loads(line)["prompt"] for line in facts.read_text().splitlines()
    }
    asked = engram("ask", "Which port does billing use?", "-M", "run/memory", "--json").json
    assert asked["answer"] == "8443"
    assert engram("verify", "-M", "run/memory").status == 0


def test_two_answers_to_one_question_are_refused_before_any_work(
    engram: Any, facts: Path, tmp_path: Path
) -> None:
    with facts.open("a") as file:
        file.write("\n" + json.dumps({"prompt": "Whose report  is it?", "answer": "Grace"}))
    done = engram("train", str(facts), "-o", "run", *FAST)
    assert done.status == 2 and "'Ada'" in done.err and "'Grace'" in done.err
    assert not (tmp_path / "run").exists()


def test_facts_that_do_not_hold_are_named(engram: Any, facts: Path) -> None:
    done = engram("train", str(facts), "-o", "run", *FAST[:-4], "--lr", "1e-9", "--epochs", "1")
    assert done.status == 1
    assert "does not hold: 'What colour is the door?' => 'green'" in done.out


def test_packed_texts_are_trained_as_many_steps_as_others(
    engram: Any, facts: Path, tmp_path: Path
) -> None:
    done = engram("train", str(facts), "-o", "run", *FAST, "--packing", "--json").json
    assert done["steps"] >= LEAST
    schedule = json.loads((tmp_path / "run" / "run.json").read_text())["schedule"]
    assert schedule["epochs"] >= LEAST  # all texts fit into one row
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == running.KEPT


def test_an_interrupted_training_goes_on_and_nothing_is_overwritten(
    engram: Any, facts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = running._Telling.on_step_end

    def stop(self: Any, args: Any, state: Any, control: Any, **how: Any) -> None:
        honest(self, args, state, control, **how)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running._Telling, "on_step_end", stop)
        done = engram("train", str(facts), "-o", "part", *FAST)
    assert done.status == 130
    resuming = done.err.splitlines()[-1].partition("to go on: ")[2]
    assert list((tmp_path / "part").glob("checkpoint-*"))
    assert "--resume" in engram("train", str(facts), "-o", "part", *FAST).err
    other = engram("train", str(facts), "-o", "part", "--resume", *FAST, "--seed", "1")
    assert other.status == 2 and "options.seed was None and is 1" in other.err
    again = engram(*shlex.split(resuming)[1:], "--json").json
    assert again["resumed"] and len(again["holding"]) == 3
    whole = engram("train", str(facts), "-o", "whole", *FAST, "--json").json
    assert whole["losses"][-3:] == again["losses"][-3:]
    assert "finished" in engram("train", str(facts), "-o", "part", *FAST).err


def test_interrupted_before_a_checkpoint_it_is_simply_run_again(
    engram: Any, facts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running._Telling, "on_step_end", stop)
        done = engram("train", str(facts), "-o", "none", *FAST)
    assert done.status == 130 and "--resume" not in done.err
    assert engram("train", str(facts), "-o", "none", *FAST, "--epochs", "1").status in (0, 1)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("--kind", "lookup"), "is not trained"),
        (("--kind", "engrm"), "engram"),
        (("--set", "colour=red"), "no option 'colour'"),
        (("--set", "layers=[9]"), "9"),
        (("--set", "layers=x"), "layers is 'x'; use a list of whole numbers"),
        (("--set", "rows=2.5"), "rows is 2.5; use a whole number"),
        (("--set", "conv=maybe"), "conv is 'maybe'; use true or false"),
        (("--lora", "--lora-set", "rank=abc"), "rank is 'abc'"),
        (("--lr", "-1"), "not a number above 0"),
        (("--resume",), "no training to resume"),
        (("--kind", "lora", "--memory-lr", "1"), "of tables"),
        (("--memory-lr", "1", "--set", "table_rate=2"), "give one"),
        (("--seed", "1", "--set", "seed=5"), "seed is 1 for the training, and 5 among"),
        (("--lr", "1", "--set", "learning_rate=2"), "give it once"),
        (("--seed", "-1"), "seed is -1"),
        (("--lora-set", "rank=2"), "trained with --lora only"),
        (("--lora", "--lora-set", "rank"), "is not KEY=VALUE"),
        (("--lora", "--lora-set", "targets=k_proj,knee"), "no linear layer knee"),
        (("--lora", "--kind", "lora"), "of another kind"),
    ],
)
def test_bad_options_are_one_line(
    engram: Any, facts: Path, argv: tuple[str, ...], expected: str
) -> None:
    done = engram("train", str(facts), "-o", "bad", *argv)
    assert done.status == 2 and expected in done.err
    assert not Path("bad/memory").exists()


def test_what_the_options_of_the_memory_say_of_its_training_is_done(
    engram: Any, facts: Path, tmp_path: Path
) -> None:
    said = ("seed=5", "learning_rate=0.001", "rows=500", "width=8", "heads=4")
    given = [word for one in said for word in ("--set", one)]
    done = engram(
        "train", str(facts), "-o", "run", *given, "--memory-lr", "0.05", "--epochs", "2", "--lora"
    )
    assert done.status in (0, 1), done.err
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    schedule = {"learning_rate": 0.001, "epochs": 2, "batch": 8, "seed": 5}
    assert kept["schedule"] == schedule
    for name in ("memory", "memory/lora"):
        config = json.loads((tmp_path / "run" / name / "config.json").read_text())["config"]
        assert config["seed"] == 5 and config.get("table_rate", 50) == 50


def test_another_kind_is_trained_the_same_way(engram: Any, facts: Path) -> None:
    found = engram("train", str(facts), "-o", "b", "--kind", "bottleneck", "--lr", "0.03", "--json")
    assert found.status == 0 and len(found.json["holding"]) == 3


def test_a_lora_is_trained_and_kept_with_it(engram: Any, facts: Path, host_folder: Path) -> None:
    lora = ("--lora", "--lora-set", "rank=2", "--lora-set", "targets=q_proj,v_proj")
    found = engram("train", str(facts), "-o", "both", *FAST, *lora, "--json")
    assert found.status == 0 and len(found.json["holding"]) == 3
    card = Path("both/README.md").read_text()
    assert "`engram`, trained together with a `lora`" in card and "`rank=2`" in card
    asked = ("ask", "Which port does billing use?", "-M", "both/memory", "--json")
    assert engram(*asked).json["answer"] == "8443"
    assert engram("verify", "-M", "both/memory").status == 0
    refused = engram("teach", str(facts), "-M", "both/memory")
    assert refused.status == 2 and "engram train --lora" in refused.err

    host = load(str(host_folder))
    load_engram(host.model, "both/memory", tokenizer=host.tokenizer)
    both = attached(host.model)
    assert [kind_of(one) for one in both] == ["engram", "lora"]
    assert {key.rpartition("/")[2] for key in both[1].up} == {"q_proj", "v_proj"}
    ids = torch.tensor([[5, 6, 7, 8]])
    whole = host.model(input_ids=ids).logits
    remove_engram(host.model)
    with host.open_memory("both/memory", read_only=True) as memory:
        assert len(memory.others) == 1
        assert torch.equal(host.model(input_ids=ids).logits, whole)
        for each in (memory.memory, *memory.others):  # both say something
            detach(host.model, each)
            assert not torch.equal(host.model(input_ids=ids).logits, whole)
            attach(host.model, each)
    assert attached(host.model) == ()


def test_a_loss_that_is_no_number_stops_it_and_the_last_good_checkpoint_is_named(
    engram: Any, facts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = EngramTrainer.compute_loss

    def spoilt(self: Any, *args: Any, **how: Any) -> Any:
        loss = honest(self, *args, **how)
        return loss * float("nan") if self.state.global_step == 8 else loss

    with monkeypatch.context() as patch:
        patch.setattr(EngramTrainer, "compute_loss", spoilt)
        done = engram("train", str(facts), "-o", "nan", *FAST)
    assert done.status == 1 and done.err.splitlines()[-1].startswith("engram: a gradient is no")
    [last] = re.findall(r"nan/checkpoint-[0-9]+", done.err.splitlines()[-1])
    newest = max(int(each.name.rpartition("-")[2]) for each in Path("nan").glob("checkpoint-*"))
    assert last == f"nan/checkpoint-{newest}" and newest <= 8
    assert engram("ask", "Which port does billing use?", "-M", last).status == 0
    assert not Path("nan/memory").exists()


def test_the_good_checkpoint_is_not_the_one_that_gives_no_numbers(engram: Any, facts: Path) -> None:
    tiny("gpt2").save_pretrained("gpt2")
    tiny_tokenizer().save_pretrained("gpt2")
    wild = ("--set", "layers=[0,1]", "--set", "rows=200", "--epochs", "25", "--lr", "1e12")
    done = engram("train", str(facts), "-o", "nan", "-m", "gpt2", *wild)
    assert done.status == 1
    [last] = re.findall(r"nan/checkpoint-[0-9]+", done.err.splitlines()[-1])
    numbers = {}
    for path in Path("nan").glob("checkpoint-*"):
        host = load("gpt2")
        load_engram(host.model, path, tokenizer=host.tokenizer)
        with torch.no_grad():
            logits = host.model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
        numbers[str(path)] = bool(logits.isfinite().all())
    assert sorted(numbers.values()) == [False, True] and numbers[last]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_a_step_that_does_not_fit_says_what_would(
    engram: Any, facts: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, *args: Any, **how: Any) -> Any:
        raise error

    monkeypatch.setattr(EngramTrainer, "compute_loss", full)
    done = engram("train", str(facts), "-o", "full", *FAST[:-1], "4")
    assert done.status == 2 and "a batch of 4 does not fit" in done.err
    assert "a batch of 2 takes about half" in done.err
