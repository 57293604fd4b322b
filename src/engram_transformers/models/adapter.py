"""Reads a Hugging Face causal language model by its structure: where its parts are.

The only assumptions are those that hold for almost every decoder in the library: a list of
``num_hidden_layers`` alike blocks, a norm beside that list, a head. What breaks them is a row
in `quirks.py`, or a typed error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engram_transformers.errors import PlaceNotFound
from engram_transformers.models.quirks import quirk_of

PLACES = ("block_in", "block_out", "mlp_out", "final")

_FEED_FORWARD = re.compile(r"mlp|feed_?forward|^ffn?$|ffn|^ff_", re.IGNORECASE)
_EXPERTS = re.compile(r"experts$", re.IGNORECASE)
_NORM = re.compile(r"norm", re.IGNORECASE)
# Norms of embeddings stand beside the blocks too, and are registered after them as often as not.
_NOT_FINAL = re.compile(r"embed|per_layer", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """A module of the host at which a memory acts; two are equal when they name the same act."""

    name: str
    "One of `PLACES`."
    layer: int | None
    "Index of the block, counted from 0; None at `final`."
    module: nn.Module

    @property
    def before(self) -> bool:
        """Whether a memory acts on the module's input (True) or on its output (False)."""
        return self.name == "block_in"


class Adapter:
    """The parts of a causal language model that memories act on.

    Raises `PlaceNotFound` when the model has no output head, or no list of blocks.
    """

    def __init__(self, model: nn.Module) -> None:
        # The methods of PreTrainedModel are not visible to the type checker.
        self.model = cast(Any, model)
        self.config: Any = self.model.config.get_text_config(decoder=True)
        self.model_type: str = self.config.model_type
        self._quirk = quirk_of(self.model_type)
        self.hidden_size: int = self._find_hidden_size()
        self.head: nn.Module = self._find_head()
        self.decoder: nn.Module = self._find_decoder()
        self.layers: nn.ModuleList = self._find_layers()
        self.input_embeddings: nn.Module = self.model.get_input_embeddings()

    @cached_property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the head; `PlaceNotFound` where there is none."""
        if self._quirk.final_norm is not None:
            found = _at(self.decoder, self._quirk.final_norm)
        else:
            found = self._norm_after_layers()
        if found is None:
            raise self._missing("final", "there is no norm after its last block", "block_out")
        self._check_head()
        return found

    @property
    def vocab_size(self) -> int:
        """How many logits the head gives for a token."""
        return _weight(self.head).shape[0]

    @property
    def head_bias(self) -> Tensor | None:
        """(vocab,): what the head adds to every logit; None for most hosts."""
        return cast("Tensor | None", self.head.bias) if _is_linear(self.head) else None

    @property
    def logit_cap(self) -> float | None:
        """The bound that the host squashes its logits into; None for most hosts."""
        cap = getattr(self.config, "final_logit_softcapping", None)
        return float(cap) if cap else None

    @property
    def logit_gain(self) -> float:
        """What the host multiplies the head's output with to make logits; 1 for most hosts."""
        scale = getattr(self.config, "logit_scale", None)
        divisor = getattr(self.config, "logits_scaling", None)
        return float(scale or 1.0) / float(divisor or 1.0)

    @property
    def windowed(self) -> bool:
        """Whether some blocks see only a window of the columns before them."""
        return getattr(self.config, "sliding_window", None) is not None

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the hidden states flow from block to block."""
        return cast(torch.dtype, self.model.dtype)

    @property
    def device(self) -> torch.device:
        """Where the host expects its token ids."""
        return _weight(self.input_embeddings).device

    def output_weight(self) -> Tensor:
        """(vocab, hidden): one row a token, in the space of the final norm's output.

        Logits are ``norm_output @ output_weight.T + head_bias``, up to a scale (Cohere, Granite)
        or a soft cap (Gemma 2), neither of which changes their order.
        """
        self._check_head()
        weight = _weight(self.head)
        if weight.shape[1] == self.hidden_size:
            return weight
        return weight @ self._projection(weight.shape[1])

    @torch.no_grad()
    def norm_gain(self) -> Tensor:
        """(hidden,): the final norm's gain in float32, also where it is stored as gain - 1."""
        norm = cast(Any, self.final_norm)
        like = next(norm.parameters(), _weight(self.head))
        # Mean 0 and size 1, so that every kind of norm passes it on; the difference of both signs
        # cancels a bias. `forward` itself, because hooks on the norm are none of our business.
        wave = torch.ones(self.hidden_size, dtype=like.dtype, device=like.device)
        wave[1::2] = -1
        gain: Tensor = (norm.forward(wave) - norm.forward(-wave)) * wave / 2
        return gain.float()

    def place(self, name: str, layer: int | None = None) -> Place:
        """The place called `name`, at block `layer`; negative layers count from the end.

        Raises `PlaceNotFound` for a name or a layer that the host does not have.
        """
        if name not in PLACES:
            near = difflib.get_close_matches(name, PLACES, n=1) or PLACES
            raise PlaceNotFound(f"no place is called {name!r}. Use place={' or '.join(near)!r}.")
        if name == "final":
            return Place("final", None, self.final_norm)
        index = self._layer_index(name, layer)
        module = self._mlp_out(index) if name == "mlp_out" else self.layers[index]
        return Place(name, index, module)

    def linears(self, layer: int) -> dict[str, nn.Module]:
        """The linear layers of a block, by dotted path in it.

        One that somebody wrapped (PEFT does) is found behind its wrapper, at the wrapper's path.
        """
        return {path: part for path, part in _unwrapped(self.layers[layer]) if _is_linear(part)}

    def linear_shape(self, place: Place) -> tuple[int, int]:
        """(inputs, outputs) of the linear layer at an `mlp_out`."""
        return _shape(place.module)

    def is_transposed(self, place: Place) -> bool:
        """Whether the linear layer at an `mlp_out` keeps its weight as (inputs, outputs)."""
        return isinstance(place.module, Conv1D)

    def logits(self, states: Tensor) -> Tensor:
        """(n, vocab) in float32: what the host makes of outputs of its decoder (n, hidden)."""
        logits: Tensor = self.head(states).float() * self.logit_gain
        cap = self.logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @torch.no_grad()
    def lens(self, states: Tensor) -> Tensor:
        """(n, vocab) in float32: the logits if these outputs of a block (n, hidden) were the last.

        nostalgebraist (2020) called it the logit lens. Raises `PlaceNotFound` as `final_norm` does.
        """
        # `forward` itself: memories that act on the norm's output are not asked about blocks.
        normed = self.final_norm.forward(states)
        weight = _weight(self.head)
        if weight.shape[1] != self.hidden_size:
            normed = normed @ self._projection(weight.shape[1]).T
        return self.logits(normed)

    def max_length(self) -> int | None:
        """The host's context length in tokens; None where its positions have no limit."""
        length = getattr(self.config, "max_position_embeddings", None)
        return length if isinstance(length, int) and length > 0 else None

    def _find_hidden_size(self) -> int:
        size = getattr(self.config, "hidden_size", None)
        if not isinstance(size, int):
            raise PlaceNotFound(
                f"{self.model_type} has no single hidden size, so it is no stack of alike blocks. "
                "Use a host with one decoder."
            )
        return size

    def _find_head(self) -> nn.Module:
        head = self.model.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise PlaceNotFound(
                f"{type(self.model).__name__} has no output head, so it cannot answer. "
                "Load the host with AutoModelForCausalLM."
            )
        return head

    def _find_decoder(self) -> nn.Module:
        if self._quirk.decoder is not None:
            return cast(nn.Module, _at(self.model, self._quirk.decoder))
        return cast(nn.Module, self.model.get_decoder())

    def _find_layers(self) -> nn.ModuleList:
        if self._quirk.layers is not None:
            return cast(nn.ModuleList, _at(self.decoder, self._quirk.layers))
        count = self.config.num_hidden_layers
        stacks = [
            (path.count("."), module)
            for path, module in self.decoder.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == count and _are_blocks(module)
        ]
        if not stacks:
            raise PlaceNotFound(
                f"{self.model_type} has no list of {count} blocks under its decoder "
                f"({type(self.decoder).__name__}). Add its path to models/quirks.py."
            )
        # Lists inside blocks (experts, norms of heads) can have as many members: outermost wins.
        return min(stacks, key=lambda stack: stack[0])[1]

    def _norm_after_layers(self) -> nn.Module | None:
        home = _innermost(self.decoder, self.layers)
        children = list(home.named_children())
        after = children[[child for _, child in children].index(self.layers) + 1 :]
        norms = [child for name, child in after if _is_norm(child) and not _NOT_FINAL.search(name)]
        return norms[-1] if norms else None

    def _check_head(self) -> None:
        """Raise `PlaceNotFound` when the head transforms the norm's output, as BERT's does."""
        home = _innermost(self.model, self.layers, self.head)
        for child in home.children():
            parts = set(child.modules())
            if self.layers not in parts and any(
                part is not self.head and (_is_linear(part) or _is_norm(part)) for part in parts
            ):
                raise self._missing("final", "its head transforms the norm's output", "block_out")

    def _projection(self, width: int) -> Tensor:
        # Small OPT models shrink the norm's output before the head: fold that into the rows.
        for child in self.decoder.children():
            if _is_linear(child) and _shape(child) == (self.hidden_size, width):
                return _weight(child)
        raise PlaceNotFound(
            f"{self.model_type} has a head over {width} features but {self.hidden_size} hidden "
            "ones, and no projection between them. Use place='block_out'."
        )

    def _layer_index(self, name: str, layer: int | None) -> int:
        count = len(self.layers)
        if layer is None or not -count <= layer < count:
            raise PlaceNotFound(
                f"place={name!r} was asked at layer {layer}; {self.model_type} has {count} "
                f"blocks. Use a layer from {-count} to {count - 1}."
            )
        return layer % count

    def _mlp_out(self, index: int) -> nn.Module:
        block = self.layers[index]
        if self._quirk.mlp_out is not None:
            found = _at(block, self._quirk.mlp_out)
        elif any(_EXPERTS.search(path) for path, _ in block.named_modules()):
            raise self._missing("mlp_out", "its experts are fused", "block_out")
        else:
            ends = [x for x in _feed_forward_linears(block) if self._ends_in_stream(x)]
            found = ends[-1] if ends else None
        if found is None:
            raise self._missing("mlp_out", f"block {index} has no feed-forward", "block_out")
        return found

    def _ends_in_stream(self, linear: nn.Module) -> bool:
        return _shape(linear)[1] == self.hidden_size

    def _missing(self, name: str, why: str, instead: str) -> PlaceNotFound:
        found = f"{self.model_type} has no {name!r}: {why}"
        error = PlaceNotFound(f"{found}. Use place={instead!r}.")
        error.found = found
        return error


def _at(root: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path; None where a configuration left it out."""
    return dict(root.named_modules()).get(path)


def _innermost(root: nn.Module, *inside: nn.Module) -> nn.Module:
    """The smallest part of `root` below which all of `inside` stand."""
    parents = [path.split(".")[:-1] for path, part in root.named_modules() if part in inside]
    shared: list[str] = []
    for names in zip(*parents, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return root.get_submodule(".".join(shared))


def _is_norm(module: nn.Module) -> bool:
    return _NORM.search(type(module).__name__) is not None


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _weight(module: nn.Module) -> Tensor:
    """(out, in): the weight of a linear layer or an embedding, whichever way it is stored."""
    weight = cast(Tensor, module.weight)
    return weight.T if isinstance(module, Conv1D) else weight


def _shape(linear: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer."""
    # Quantised layers pack their weight, so its shape says nothing; Conv1D's is transposed.
    if isinstance(linear, nn.Linear):
        return linear.in_features, linear.out_features
    return cast(Any, linear).nx, cast(Any, linear).nf


def _are_blocks(stack: nn.ModuleList) -> bool:
    # Models that keep attentions, norms and feed-forwards in separate lists have no blocks.
    return all(
        any(_is_linear(part) for part in block.modules())
        and any(_is_norm(part) for part in block.modules())
        for block in stack
    )


def _feed_forward_linears(block: nn.Module) -> list[nn.Module]:
    """Linear layers of a block's feed-forward in order, whether it is a child or inlined."""
    inside = [
        part
        for name, child in block.named_children()
        if _FEED_FORWARD.search(name) or _FEED_FORWARD.search(type(child).__name__)
        for _, part in _unwrapped(child)
        if _is_linear(part)
    ]
    return inside or [
        part for path, part in _unwrapped(block) if "." not in path and _is_linear(part)
    ]


def _unwrapped(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """A module and all its parts with their paths; a wrapper (PEFT's) counts as what it wraps."""
    while isinstance(getattr(module, "base_layer", None), nn.Module):
        module = cast(nn.Module, module.base_layer)
    yield path, module
    for name, child in module.named_children():
        yield from _unwrapped(child, f"{path}.{name}" if path else name)
