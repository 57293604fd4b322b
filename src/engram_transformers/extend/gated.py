"""The third seed's Option 2: a model and a LoRA of it, mixed token by token by a learned gate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from engram_transformers.evaluation.report.heatmap import Shaded, heatmap
from engram_transformers.extend.add import give
from engram_transformers.memories.lora import GatedLora, TokenGates
from engram_transformers.models.adapter import Adapter
from engram_transformers.training.saved import described


class GatedEngramAdapter(nn.Module):
    """Says what a model says, what it says with a LoRA, or a mixture, as the gate has it.

    The LoRA stays as it was saved; only the gate is trained, by a loop over `forward` or by
    `EngramTrainer(model=gated.base_model, ...)`. `base_model` keeps it while it is attached, so
    `base_model.generate` mixes too, and gets the methods of `add_engram`.

    Args:
        base_model: the host; frozen, as PEFT does it, and not among `parameters()`.
        adapter_path: a folder that PEFT saved a LoRA of this model in.
        tokenizer: of the model; found under the model's name if it is not given.
        options: further fields of `GatedLoraConfig`: `threshold`, `guidance`, `rehearse`.

    Raises:
        BadInput: the folder holds no plain LoRA in safetensors.
        HostMismatch: it is a LoRA of another model.
    """

    base_model: Any

    def __init__(
        self, base_model: Any, adapter_path: str | Path, *, tokenizer: Any = None, **options: Any
    ) -> None:
        super().__init__()
        # Not registered: what this module trains and stores is none of the host's.
        self.__dict__["base_model"] = base_model
        host = described(base_model, tokenizer)
        self.tokens = host.tokens
        self.memory = GatedLora.of_peft(adapter_path, Adapter(base_model), **options)
        base_model.requires_grad_(False)
        give(base_model, self.memory, tokenizer=host.tokenizer)

    @property
    def gate(self) -> nn.Module:
        """What is trained: from the host's final states to 0 (the host alone) to 1 (tuned)."""
        return self.memory.gate

    def forward(self, input_ids: Tensor, **inputs: Any) -> Tensor:
        """(batch, time, vocab): ``gate * tuned + (1 - gate) * base``, in logits.

        The host's own, bit for bit, where the gate is below the threshold. In train mode such
        gates have gradients too, so that they can learn to open.
        """
        with self.memory.unrouted() if self.training else nullcontext():
            logits: Tensor = self.base_model(input_ids=input_ids, **inputs).logits
        return logits

    def gates(self, text: str) -> TokenGates:
        """How far the gate opens behind each token of a text."""
        return self.memory.gates(self.tokens, text)

    def draw(self, texts: Sequence[str], path: str | Path) -> None:
        """Write the gates along texts as a heatmap (PNG); `MissingExtra` without matplotlib."""
        found = [self.gates(text) for text in texts]
        shaded = [
            Shaded(f"text {i}", one.texts, one.values) for i, one in enumerate(found, start=1)
        ]
        heatmap(shaded, Path(path), threshold=self.memory.config.threshold)
