"""Train memories with transformers' `Trainer`: its loop, schedules, callbacks, logs and evaluation.

What differs from it: the trained tensors are those of the attached memories, tables are updated by
row, the loss is that of what is to be learned alone, blocks below the lowest one that changes are
run once for each batch, and checkpoints are memory directories beside one safetensors file.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainingArguments

from engram_transformers.attaching import attached, vacated
from engram_transformers.errors import (
    BadInput,
    MissingExtra,
    StoreDamaged,
    TrainingDiverged,
    UnsupportedCall,
)
from engram_transformers.evaluation.check import Trial
from engram_transformers.evaluation.generate import common_prefix
from engram_transformers.memory import Schedule, Trainable
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.late import LatePass
from engram_transformers.training.batches import (
    Batch,
    exact_in,
    keep_below,
    packed_batches,
    padded_batches,
    predictions,
)
from engram_transformers.training.checkpoints import (
    is_complete,
    last_complete,
    read_random,
    read_state,
    write_state,
)
from engram_transformers.training.examples import Example, examples_of, facts_in
from engram_transformers.training.fit import alone
from engram_transformers.training.joint import optimizer_of
from engram_transformers.training.rate import FLOOR, WARM_UP
from engram_transformers.training.room import within_memory
from engram_transformers.training.rowwise import Tabled
from engram_transformers.training.saved import described, load_memories, save_memories
from engram_transformers.training.together import Together

FOLDER = "engram-training"
"Where checkpoints go unless the caller's arguments say otherwise."
PACKED = 512
"Tokens of a packed row at most, unless the host reads fewer."


def arguments(schedule: Schedule, folder: str | Path = FOLDER, **further: Any) -> TrainingArguments:
    """What transformers is told of a schedule; `further` as it has them."""
    return TrainingArguments(
        output_dir=str(folder),
        learning_rate=schedule.learning_rate,
        num_train_epochs=schedule.epochs,
        per_device_train_batch_size=schedule.batch,
        seed=schedule.seed,
        # As `rate.shares` has it: the first step moves already, and the last one still does.
        lr_scheduler_type="cosine_warmup_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": FLOOR},
        warmup_steps=WARM_UP,
        report_to="none",
        **further,
    )


@dataclass(frozen=True)
class _Set:
    """A dataset, ready for the host."""

    batches: list[Batch]
    late: LatePass
    texts: int


class EngramTrainer(Trainer):  # type: ignore[misc]
    """Trains every trainable memory that is attached to a model.

    Args:
        model: what `add_engram` returned, or any host with a trainable memory attached.
        train_dataset: items as `training.examples.examples_of` reads them.
        args: `TrainingArguments`; without them, as the first memory's configuration says.
        freeze_base: whether the host's own tensors stay as they are.
        packing: put several texts into one row.
        tokenizer: of the host; None: that with which a memory was added, or that of its name.

    Raises:
        BadInput: no trainable memory is attached, or an item cannot be trained on.
        UnsupportedCall: several processes train together, whose row-wise gradients nobody sums.
    """

    optimizer: Any
    control: Any
    good: Path | None = None
    "The newest checkpoint of this training whose tensors gave a loss that is a number."
    _newest: Path | None = None

    def __init__(
        self,
        model: Any,
        args: TrainingArguments | None = None,
        *,
        train_dataset: Sequence[Any] | None = None,
        eval_dataset: Sequence[Any] | None = None,
        freeze_base: bool = True,
        packing: bool = False,
        tokenizer: Any = None,
        callbacks: list[Any] | None = None,
    ) -> None:
        self.memories: list[Any] = [one for one in attached(model) if isinstance(one, Trainable)]
        if not self.memories:
            raise BadInput("this model has no memory that can be trained; add_engram first")
        self.together = Together(self.memories)
        self.adapter, self.freeze_base, self.packing = Adapter(model), freeze_base, packing
        self.host = described(model, tokenizer)
        self.tokens = self.host.tokens
        _check_accelerate()
        # The caller's own may serve another trainer, and stay as they are.
        args = copy.copy(args or arguments(self.memories[0].schedule))
        if args.world_size > 1:
            raise UnsupportedCall("EngramTrainer trains in one process; it was started in several")
        # The optimiser cuts the gradients of memories, which are no part of the model.
        self.clip, args.max_grad_norm = args.max_grad_norm, 0.0
        use_cache = model.config.use_cache
        super().__init__(model=model, args=args, eval_dataset=eval_dataset, callbacks=callbacks)
        model.config.use_cache = use_cache  # the host stays what it was
        for memory in self.memories:
            memory.to(self.adapter.device)
        self.train_dataset = self._ready(train_dataset or [], expected=True)
        self.eval_dataset = None if eval_dataset is None else self._ready(eval_dataset)
        self._stack = ExitStack()

    # -- data ------------------------------------------------------------------------------

    def _ready(self, items: Sequence[Any], *, expected: bool = False) -> _Set:
        items = list(items)
        if expected:
            self.together.expect(facts_in(items))
        examples = examples_of(items, self.tokens, longest=self.adapter.max_length())
        if expected and examples:
            examples += self._rehearsed(examples)
        first = self.together.first_block if self.freeze_base else 0
        return self._packed(examples, first) if self.packing else self._padded(examples, first)

    def _rehearsed(self, examples: Sequence[Example]) -> list[Example]:
        """What is trained besides, so that it stays as it is."""
        taught = {each.ids[: each.prompt] for each in examples if each.prompt is not None}
        pairs = self.together.rehearsal(self.tokens, besides=taught)
        return [Example.of(Trial(*pair)) for pair in pairs]

    def _padded(self, examples: Sequence[Example], first: int) -> _Set:
        # What is learned is predicted from the token before it, which has to be read in full.
        prefix = common_prefix([each.ids[: each.learnt[0]] for each in examples])
        batches = padded_batches(
            examples,
            self.args.per_device_train_batch_size,
            seed=self.args.seed,
            skip=len(prefix),
            device=self.adapter.device,
        )
        return _Set(batches, LatePass(self.adapter, first, prefix=prefix), len(examples))

    def _packed(self, examples: Sequence[Example], first: int) -> _Set:
        batches = packed_batches(
            examples,
            self.args.per_device_train_batch_size,
            seed=self.args.seed,
            longest=min(PACKED, self.adapter.max_length() or PACKED),
            device=self.adapter.device,
        )
        return _Set(batches, LatePass(self.adapter, first), len(examples))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of like length, made once; they come in another order every epoch."""
        if not self.train_dataset.batches:
            raise BadInput("there is nothing to train on; pass a train_dataset")
        batches: Any = self.train_dataset.batches
        order = _Order(len(batches), self.args.seed, self._epoch)
        return DataLoader(batches, batch_size=1, sampler=order, collate_fn=_inputs)

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """Texts, not batches."""
        return self.train_dataset.texts

    def _epoch(self) -> int:
        batches, each = len(self.train_dataset.batches), int(self.args.gradient_accumulation_steps)
        return int(self.state.global_step) // max(1, -(-batches // each))

    # -- steps -----------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **how: Any) -> Any:
        """Train; `True` goes on from the newest checkpoint that was written to its end.

        Raises:
            BadInput: there is nothing to resume, or a step does not fit into memory.
            TrainingDiverged: a gradient is no number, and the tensors are those before that step;
                or the loss is none, and they are those of the last good checkpoint, if there is
                one. All checkpoints are kept.
        """
        resume_from_checkpoint = self._resumed(resume_from_checkpoint)
        # Those of a training before this one hold what its tables read, and nothing reads now.
        self.optimizer = self.lr_scheduler = None
        with self._fitting(), ExitStack() as self._stack:
            self._stack.enter_context(self.together.unrouted())
            if self.freeze_base:
                self._stack.enter_context(alone(self.model, self.together.parameters()))
                for each in filter(None, (self.train_dataset, self.eval_dataset)):
                    keep_below(each.late, each.batches)
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **how)

    def _fitting(self) -> AbstractContextManager[None]:
        batch = self.args.per_device_train_batch_size
        return within_memory(batch=batch, device=self.adapter.device)

    def _resumed(self, given: str | bool | None) -> str | None:
        """The checkpoint to go on from."""
        self.good, self._newest = None, None
        if given is True:
            folder = Path(self.args.output_dir)
            self._newest = last_complete(folder)
            if self._newest is None:
                raise BadInput(f"there is no complete checkpoint in {folder}")
            # From all before it the training went on.
            self.good = last_complete(folder, before=self._newest)
        elif given:
            self._newest = Path(given)
        return None if self._newest is None else str(self._newest)

    def create_optimizer(self, model: Any = None) -> Any:
        """One optimiser for all: by row where there are tables, AdamW without decay elsewhere."""
        if self.optimizer is None:
            tables = [
                (memory, self._stack.enter_context(memory.by_rows()))
                for memory in self.memories
                if isinstance(memory, Tabled)
            ]
            self.optimizer = optimizer_of(
                self.memories,
                rate=self.args.learning_rate,
                tables=tables,
                others=[] if self.freeze_base else self._own_parameters(),
                clip=self.clip,
            )
        return self.optimizer

    def _own_parameters(self) -> Iterator[torch.nn.Parameter]:
        ours = {id(p) for p in self.together.parameters()}
        return (p for p in self.model.parameters() if p.requires_grad and id(p) not in ours)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Mean cross-entropy of what is learned, in nats a token."""
        if self.freeze_base:
            model.eval()  # `Trainer` switches dropout on before every step
        batch: Batch = inputs["batch"]
        logits = predictions(self.adapter, self.train_dataset.late, batch)
        loss = functional.cross_entropy(logits, batch.wanted) + self.together.penalty()
        if not math.isfinite(float(loss.detach())):
            raise TrainingDiverged(
                f"the loss is no number any more at step {self.state.global_step}; {self._back()}. "
                f"Use a learning_rate below {self.args.learning_rate:g}"
            )
        self.good = self._newest
        return (loss, logits) if return_outputs else loss

    def _back(self) -> str:
        """Go back to the last good checkpoint; what the memory then is.

        The tensors that gave no number are those after the last step, and may have been saved.
        """
        if not self.state.global_step:
            return "the memory is as it was"
        if self.good is None or not is_complete(self.good):
            return "there is no good checkpoint to go back to, and the memory is spoilt"
        self._load_from_checkpoint(str(self.good))
        return f"the memory is that of {self.good.name}"

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As ever, with the length of the memories' gradient."""
        if "grad_norm" in logs and self.optimizer is not None:
            logs["grad_norm"] = getattr(self.optimizer, "optimizer", self.optimizer).norm
        super().log(logs, *args, **kwargs)

    @torch.no_grad()
    def evaluate(
        self,
        eval_dataset: Sequence[Any] | None = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss a token, and the share of texts all of whose learned tokens are the first choice.

        Such a text is what the host writes, greedily, after what comes before it.
        """
        held_out = self.eval_dataset if eval_dataset is None else self._ready(eval_dataset)
        if held_out is None or not held_out.batches:
            raise BadInput("there is nothing to evaluate on; pass an eval_dataset")
        training = self.model.training
        self.model.eval()
        loss, tokens, exact = 0.0, 0, 0
        with self._fitting():
            for batch in held_out.batches:
                logits = predictions(self.adapter, held_out.late, batch)
                loss += float(functional.cross_entropy(logits, batch.wanted, reduction="sum"))
                tokens, exact = tokens + len(batch.wanted), exact + exact_in(logits, batch)
        self.together.penalty()  # what these passes left is part of no step's loss
        self.model.train(training)
        found = {
            f"{metric_key_prefix}_loss": loss / tokens,
            f"{metric_key_prefix}_exact": exact / held_out.texts,
        }
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    # -- files -----------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the memories as memory directories, and the host too where it was trained.

        Args:
            output_dir: a directory of their own; None: `memory`, beside the checkpoints.
        """
        path = Path(output_dir or Path(self.args.output_dir) / "memory")
        if not self.freeze_base:
            self.host = described(self.model, self.host.tokenizer)
        save_memories(path, self.memories, self.host.identity)
        if not self.freeze_base:
            with vacated(self.model):
                self.model.save_pretrained(path / "host")
            self.host.tokenizer.save_pretrained(path / "host")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.freeze_base:
            self._load_host(Path(resume_from_checkpoint) / "host")
        load_memories(resume_from_checkpoint, self.memories, self.host.identity)

    def _load_host(self, folder: Path) -> None:
        """Give the host's tensors the numbers that were saved of them."""
        try:
            saved = type(self.model).from_pretrained(folder, dtype=self.model.dtype)
        except (OSError, ValueError, SafetensorError) as error:
            raise StoreDamaged(
                f"{folder} is not the host of this training: {error}; take an earlier checkpoint"
            ) from error
        with vacated(self.model):
            self.model.load_state_dict(saved.state_dict())
        self.host = described(self.model, self.host.tokenizer)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        write_state(Path(output_dir), self.optimizer, self.lr_scheduler)
        self._newest = Path(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            read_state(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        pass  # it is in the optimiser's file

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            read_random(Path(checkpoint))


def _check_accelerate() -> None:
    if find_spec("accelerate") is None:
        raise MissingExtra(
            "EngramTrainer needs accelerate, which is not installed; "
            "pip install 'engram-transformers[train]'"
        )


class _Order(Sampler[int]):
    """An order of the batches that the seed and the epoch decide, so that it can be resumed."""

    def __init__(self, size: int, seed: int, epoch: Callable[[], int]) -> None:
        self.size, self.seed, self.epoch = size, seed, epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        noise = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch())
        return iter(torch.randperm(self.size, generator=noise).tolist())


def _inputs(batches: Sequence[Batch]) -> dict[str, Tensor | Batch]:
    [batch] = batches
    # `Trainer` counts tokens by `input_ids`.
    return {"input_ids": batch.ids, "batch": batch}
