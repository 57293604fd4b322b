"""What flows between the blocks of a host: read at chosen tokens, or replaced there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers.models.adapter import Adapter, Place


@dataclass(frozen=True)
class Spots:
    """Tokens of a batch: the row and the column of each, (n,) both."""

    rows: Tensor
    columns: Tensor

    @staticmethod
    def of(pairs: Sequence[tuple[int, int]]) -> Spots:
        """From (row, column) of each token."""
        rows, columns = torch.tensor(list(pairs), dtype=torch.long).reshape(-1, 2).unbind(1)
        return Spots(rows, columns)


@dataclass(frozen=True)
class Patch:
    """States (n, hidden) that take the place of those at some tokens, at one place of a host."""

    place: Place
    spots: Spots
    states: Tensor
    adds: bool = False
    "Whether they are added to those instead."


@torch.no_grad()
def block_states(
    adapter: Adapter, ids: Tensor, mask: Tensor, spots: Spots, *, layers: Sequence[int]
) -> Tensor:
    """(layers, n, hidden): what blocks give at some tokens of a batch (batch, time).

    Blocks above the highest of `layers` are not run, unless it is the last.
    """
    kept: dict[int, Tensor] = {}
    last = max(layers)
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(
                _kept(adapter.layers[layer], kept, layer, spots, stop=layer == last)
            )
        with suppress(_Enough):
            adapter.decoder(
                input_ids=ids.to(adapter.device),
                attention_mask=mask.to(adapter.device),
                use_cache=False,
            )
    return torch.stack([kept[layer] for layer in layers])


@torch.no_grad()
def place_states(
    adapter: Adapter, ids: Tensor, mask: Tensor, places: Sequence[Place]
) -> list[Tensor]:
    """(batch, time, hidden) at each place, from one whole pass."""
    kept: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for i, place in enumerate(places):
            hooks.enter_context(_kept(place.module, kept, i, None, stop=False))
        adapter.decoder(
            input_ids=ids.to(adapter.device),
            attention_mask=mask.to(adapter.device),
            use_cache=False,
        )
    return [kept[i] for i in range(len(places))]


@torch.no_grad()
def block_inputs(adapter: Adapter, ids: Tensor, begin: int = 0) -> Tensor:
    """(blocks, time, hidden) that each block is given for one text (1, time), from `begin` on."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            kept[layer] = states[0, begin:].detach()

        return hook

    with ExitStack() as hooks:
        for layer, block in enumerate(adapter.layers):
            handle = block.register_forward_pre_hook(keep(layer), with_kwargs=True)
            hooks.callback(handle.remove)
        adapter.decoder(input_ids=ids.to(adapter.device), use_cache=False)
    return torch.stack([kept[layer] for layer in range(len(adapter.layers))])


@contextmanager
def patched(patches: Sequence[Patch]) -> Iterator[None]:
    """While this lasts, states are replaced as the patches say; those of one place in order."""
    with ExitStack() as hooks:
        for patch in patches:
            change = changed_input if patch.place.before else changed
            hooks.enter_context(change(patch.place.module, _put(patch)))
        yield


@contextmanager
def changed(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While this lasts, a module's output is what `change` makes of it."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def changed_input(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While this lasts, what a block is given is what `change` makes of it."""

    def hook(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class _Enough(Exception):
    """The last block whose states were asked for has run."""


@contextmanager
def _kept(
    module: nn.Module, kept: dict[int, Tensor], key: int, spots: Spots | None, *, stop: bool
) -> Iterator[None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if spots is None:
            kept[key] = states.detach()
        else:
            rows, columns = spots.rows.to(states.device), spots.columns.to(states.device)
            kept[key] = states[rows, columns].detach()
        if stop:
            raise _Enough

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _put(patch: Patch) -> Callable[[Tensor], Tensor]:
    def change(states: Tensor) -> Tensor:
        rows, columns = patch.spots.rows, patch.spots.columns
        values = patch.states.to(states.device, states.dtype)
        at = (rows.to(states.device), columns.to(states.device))
        return states.index_put(at, values, accumulate=patch.adds)

    return change
