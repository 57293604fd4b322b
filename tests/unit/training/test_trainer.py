"""EngramTrainer: transformers' loop around memories, checkpoints that resume exactly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from cases import FACTS
from engram_transformers.errors import BadInput, StoreDamaged, TrainingDiverged
from engram_transformers.extend import add_engram, add_lora, load_engram, remove_engram
from engram_transformers.memory import Schedule
from engram_transformers.training import trainer as training
from engram_transformers.training.checkpoints import FILE, last_complete
from engram_transformers.training.rate import shares
from engram_transformers.training.trainer import EngramTrainer
from hosts import tiny, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PAIRS = [{"prompt": fact.prompt, "answer": fact.answer} for fact in FACTS]
TEXTS = [{"text": "The billing service listens on port 8443."}, {"text": "Green, said the door."}]


def model_with(name: str = "llama", **options: Any) -> Any:
    size = {"memory_size": 3200, "width": 8, "heads": 4, "tokenizer": TOKENIZER}
    return add_engram(tiny(name), inject_layers=[1], **{**size, **options})


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    given = {
        "output_dir": str(folder),
        "learning_rate": 3e-2,
        "num_train_epochs": 100,
        "per_device_train_batch_size": 2,
        "save_strategy": "no",
        "logging_steps": 5,
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
    }
    return TrainingArguments(**{**given, **changes})


def trainer_of(model: Any, folder: Path, data: Any = PAIRS, **how: Any) -> EngramTrainer:
    how = {"train_dataset": data, "tokenizer": TOKENIZER, **how}
    args = how.pop("args", None) or arguments(folder)
    return EngramTrainer(model=model, args=args, **how)


def tensors_of(trainer: EngramTrainer) -> dict[str, torch.Tensor]:
    return {n: t.clone() for one in trainer.memories for n, t in one.state_dict().items()}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("packing", [False, True])
def test_answers_are_learned_and_the_host_stays_as_it_was(
    name: str, packing: bool, tmp_path: Path
) -> None:
    # Whole keys have rows of their own, so that nothing but the training can keep them from it.
    model = model_with(name, layout="span")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    config = copy.deepcopy(model.config.to_dict())
    trainer = trainer_of(model, tmp_path, eval_dataset=PAIRS, packing=packing)
    first = trainer.evaluate()
    trainer.train()
    found = trainer.evaluate()
    assert found["eval_exact"] == 1.0 and found["eval_loss"] < first["eval_loss"] / 2
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not model.training and model.config.to_dict() == config
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert all(entry["grad_norm"] > 0 for entry in trainer.state.log_history if "loss" in entry)


def test_what_is_kept_of_the_frozen_blocks_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for keep in (True, False):
        if not keep:
            monkeypatch.setattr(training, "keep_below", lambda *_: None)
        trainer = trainer_of(model_with(), tmp_path, args=arguments(tmp_path, max_steps=5))
        trainer.train()
        found.append(tensors_of(trainer))
        assert keep == all(b.below is not None for b in trainer.train_dataset.batches)
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, atol=1e-4, rtol=1e-3)


def test_packed_texts_have_the_loss_of_each_alone(tmp_path: Path) -> None:
    losses = [
        trainer_of(model_with(), tmp_path, packing=packing).evaluate([*PAIRS, *TEXTS])["eval_loss"]
        for packing in (False, True)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("layout", ["deepseek", "span"])
@pytest.mark.parametrize("stop", [4, 5])
def test_a_resumed_training_ends_in_the_same_bits(layout: str, stop: int, tmp_path: Path) -> None:
    class Stop(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= stop

    def args(folder: str) -> TrainingArguments:
        # Five steps an epoch at one text a step: one stop is within an epoch, one at its end.
        return arguments(
            tmp_path / folder,
            max_steps=9,
            per_device_train_batch_size=1,
            save_strategy="steps",
            save_steps=stop,
            lr_scheduler_type="cosine",
            warmup_steps=2,
        )

    whole = trainer_of(model_with(layout=layout), tmp_path, args=args("whole"), data=FACTS)
    whole.train()
    broken = trainer_of(
        model_with(layout=layout), tmp_path, args=args("part"), data=FACTS, callbacks=[Stop()]
    )
    broken.train()
    assert broken.state.global_step == stop
    (tmp_path / "part" / "checkpoint-900").mkdir()  # what a killed writer leaves
    again = trainer_of(model_with(layout=layout), tmp_path, args=args("part"), data=FACTS)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 9
    expected, found = tensors_of(whole), tensors_of(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


class Interrupt(TrainerCallback):  # type: ignore[misc]
    """Ctrl-C, once."""

    def __init__(self, at: int) -> None:
        self.at: int | None = at

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.at:
            self.at = None
            raise KeyboardInterrupt


@pytest.mark.parametrize("freeze_base", [True, False])
def test_a_trainer_that_was_interrupted_goes_on_in_the_same_bits(
    freeze_base: bool, tmp_path: Path
) -> None:
    def made(folder: str, **how: Any) -> EngramTrainer:
        args = arguments(
            tmp_path / folder, max_steps=6, per_device_train_batch_size=2, save_strategy="steps",
            save_steps=2,
        )  # fmt: skip
        return trainer_of(
            model_with(), tmp_path, args=args, data=FACTS, freeze_base=freeze_base, **how
        )

    whole, broken = made("whole"), made("broken", callbacks=[Interrupt(3)])
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    broken.train(resume_from_checkpoint=True)
    other = made("broken")
    other.train(resume_from_checkpoint=True)
    for found in (broken, other):
        expected, got = tensors_of(whole), tensors_of(found)
        assert all(torch.equal(expected[name], got[name]) for name in expected)
        host, its = whole.model.state_dict(), found.model.state_dict()
        assert all(torch.equal(host[name], its[name]) for name in host)


def test_a_second_training_moves_tables_too(tmp_path: Path) -> None:
    trainer = trainer_of(model_with(), tmp_path, args=arguments(tmp_path, max_steps=2))
    trainer.train()
    before = tensors_of(trainer)
    trainer.train()
    after = tensors_of(trainer)
    tables = [name for name in after if "table" in name]
    assert tables and not any(torch.equal(before[name], after[name]) for name in tables)


def test_the_arguments_of_the_caller_stay_as_they_are(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=1, max_grad_norm=0.5)
    trainer_of(model_with(), tmp_path, args=args).train()
    assert args.max_grad_norm == 0.5


def test_every_epoch_has_an_order_of_its_own_where_gradients_are_summed(tmp_path: Path) -> None:
    args = arguments(
        tmp_path, max_steps=9, per_device_train_batch_size=1, gradient_accumulation_steps=2
    )
    trainer = trainer_of(model_with(), tmp_path, args=args, data=FACTS)
    epochs = []
    for step in range(9):
        trainer.state.global_step = step
        epochs.append(trainer._epoch())
    steps = -(-len(trainer.train_dataset.batches) // 2)
    assert epochs == [step // steps for step in range(9)]


def test_a_checkpoint_holds_no_pickle_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    trainer_of(model_with(), tmp_path, args=args).train()
    last = last_complete(tmp_path)
    assert last is not None and last.name == "checkpoint-4"
    kinds = {path.suffix for path in last.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".sqlite", ".lock", ""}
    (last / FILE).write_bytes((last / FILE).read_bytes()[:100])
    with pytest.raises(StoreDamaged, match="earlier checkpoint"):
        trainer_of(model_with(), tmp_path, args=args).train(resume_from_checkpoint=str(last))


def test_lora_and_engram_are_trained_and_saved_together(tmp_path: Path) -> None:
    model = add_lora(model_with(), rank=2, layers=1, tokenizer=TOKENIZER)
    trainer = trainer_of(model, tmp_path)
    before = tensors_of(trainer)
    trainer.train()
    after = tensors_of(trainer)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith("up") for name in moved) and any("table" in name for name in moved)
    ids = torch.tensor([TOKENIZER("Which port does billing use?")["input_ids"]])
    with torch.no_grad():
        expected = model(ids).logits
        model.save_engram(tmp_path / "saved", tokenizer=TOKENIZER)
        other = load_engram(tiny("llama"), tmp_path / "saved", tokenizer=TOKENIZER)
        assert torch.equal(other(ids).logits, expected)
        bare = tiny("llama")(ids).logits
        assert torch.equal(remove_engram(other)(ids).logits, bare)


def test_the_host_is_trained_too_where_it_is_not_frozen(tmp_path: Path) -> None:
    model = model_with()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    trainer = trainer_of(model, tmp_path, freeze_base=False, args=arguments(tmp_path, max_steps=3))
    trainer.train()
    changed = [n for n, t in model.state_dict().items() if not torch.equal(before[n], t)]
    assert len(changed) > 10
    trainer.save_model()
    assert (tmp_path / "memory" / "host" / "model.safetensors").is_file()


def test_a_loss_that_is_no_number_stops_it_and_the_last_good_tensors_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = arguments(tmp_path, save_strategy="steps", save_steps=1)
    trainer = trainer_of(model_with(), tmp_path, args=args)
    honest, kept = training.functional.cross_entropy, []

    def loss(*given: Any, **how: Any) -> torch.Tensor:
        kept.append(tensors_of(trainer))
        return honest(*given, **how) * (float("nan") if len(kept) == 3 else 1)

    monkeypatch.setattr(training.functional, "cross_entropy", loss)
    with pytest.raises(TrainingDiverged, match=r"step 2.*learning_rate below 0\.03"):
        trainer.train()
    now = tensors_of(trainer)
    # The tensors after the second step gave no number, and so are not the good ones.
    assert all(torch.equal(kept[1][name], now[name]) for name in now)
    assert last_complete(tmp_path) == tmp_path / "checkpoint-2"
    assert trainer.good == tmp_path / "checkpoint-1"


def gives_numbers(model: Any) -> bool:
    asked = [TOKENIZER(fact.prompt, return_tensors="pt")["input_ids"] for fact in FACTS]
    with torch.no_grad():
        return all(bool(model(ids).logits.isfinite().all()) for ids in asked)


def test_after_a_rate_far_too_high_the_good_checkpoint_and_the_memory_give_numbers(
    tmp_path: Path,
) -> None:
    how = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    args = arguments(tmp_path, learning_rate=1e12, **how)
    model = model_with("gpt2")
    trainer = trainer_of(model, tmp_path, args=args)
    with pytest.raises(TrainingDiverged, match=r"at step 2; the memory is that of checkpoint-1\."):
        trainer.train()
    assert trainer.good == tmp_path / "checkpoint-1" and gives_numbers(model)
    for name, good in (("checkpoint-1", True), ("checkpoint-2", False)):
        loaded = load_engram(tiny("gpt2"), tmp_path / name, tokenizer=TOKENIZER)
        assert gives_numbers(loaded) == good
    again = trainer_of(model_with("gpt2"), tmp_path, args=args)
    with pytest.raises(TrainingDiverged, match="checkpoint-1"):
        again.train(resume_from_checkpoint=True)


def test_where_no_checkpoint_is_good_it_says_so(tmp_path: Path) -> None:
    model = model_with("gpt2")
    trainer = trainer_of(model, tmp_path, args=arguments(tmp_path, learning_rate=1e12))
    with pytest.raises(TrainingDiverged, match=r"no good checkpoint.*spoilt"):
        trainer.train()
    assert trainer.good is None and not gives_numbers(model)


@pytest.mark.parametrize("act", ["train", "evaluate"])
def test_a_step_that_does_not_fit_says_what_would(
    act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = trainer_of(model_with(), tmp_path, eval_dataset=PAIRS)
    monkeypatch.setattr(training, "predictions", full)
    with pytest.raises(BadInput, match=r"batch of 2 does not fit .* a batch of 1 takes about half"):
        getattr(trainer, act)()


def test_the_seeds_own_calls_work(tmp_path: Path) -> None:
    engram_model = model_with(gate_type="content-based")
    engram_model.name_or_path = ""
    args = arguments(tmp_path / "run", num_train_epochs=1)
    EngramTrainer(model=engram_model, args=args, train_dataset=PAIRS, freeze_base=True).train()
    saved = engram_model.save_engram(tmp_path / "weights")
    engram_model.load_engram(saved)
    engram_model.remove_engram()
    with pytest.raises(BadInput, match="tokenizer="):
        load_engram(engram_model, saved)


@pytest.mark.parametrize(
    ("items", "match"),
    [
        ([], "nothing to train on"),
        ([{"question": "q"}], "item 0 .* cannot be trained on"),
        ([*PAIRS, 3], "item 4 .* int"),
        ([{"messages": [{"role": "user", "content": "hm"}]}], "does not end"),
        ([{"input_ids": [1, 2], "labels": [-100, -100]}], "nothing to learn"),
        ([{"input_ids": [1, 2, 3], "labels": [1, 2]}], "3 input_ids and 2 labels"),
        ([{"prompt": "long " * 600, "answer": "x"}], "the host reads 512"),
    ],
)
def test_items_that_cannot_be_trained_on_are_named(
    items: list[Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=match):
        trainer_of(model_with(), tmp_path, data=items).train()


def test_a_model_without_a_memory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="add_engram first"):
        trainer_of(tiny("llama"), tmp_path)
    with pytest.raises(BadInput, match="no complete checkpoint"):
        trainer_of(model_with(), tmp_path).train(resume_from_checkpoint=True)


def test_the_usual_schedule_is_that_of_teaching(tmp_path: Path) -> None:
    schedule = Schedule(learning_rate=0.01, epochs=4, batch=1, seed=0)
    args = training.arguments(schedule, tmp_path, use_cpu=True)
    trainer = trainer_of(model_with(), tmp_path, args=args, data=FACTS)
    seen: list[float] = []

    class See(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, lr_scheduler: Any, **__: Any) -> None:
            seen.append(lr_scheduler.get_last_lr()[0])

    trainer.add_callback(See())
    trainer.train()
    share = shares(len(seen))
    assert [one / max(seen) for one in seen] == pytest.approx(
        [share(step) for step in range(len(seen))], abs=0.1
    )
