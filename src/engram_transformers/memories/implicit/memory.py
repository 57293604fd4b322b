"""The implicit memory: slots at some blocks of a host, one set of them a sequence."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engram_transformers.attaching import attached
from engram_transformers.errors import BadInput, HostMismatch, StoreDamaged, StoreError
from engram_transformers.memories.implicit.config import ImplicitConfig
from engram_transformers.memories.implicit.layer import ImplicitLayer, Usage, Windows
from engram_transformers.memories.implicit.slots import Slots
from engram_transformers.memories.shared.sizes import state_sizes
from engram_transformers.memory import Schedule
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.tokens import HostTokens

FORMAT = "engram-implicit-1"
_numbers = itertools.count(1)


class Implicit(nn.Module):
    """Slots that sequences write as they are read; what they compute with is trained.

    A sequence begins with what is held: nothing, until `read` or `load` put something there.
    """

    Config = ImplicitConfig

    def __init__(self, config: ImplicitConfig, layers: Sequence[int], *, hidden: int) -> None:
        super().__init__()
        self.config, self.number = config, next(_numbers)
        self.adapter: Adapter | None = None
        self.tokens: HostTokens | None = None
        noise = torch.Generator().manual_seed(config.seed)
        self.layers = nn.ModuleDict({
            str(layer): ImplicitLayer(
                config, hidden=hidden, key=("implicit", self.number, layer), noise=noise
            )
            for layer in layers
        })  # fmt: skip

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens | None, config: ImplicitConfig) -> Self:
        """A memory for a host that changes nothing yet; it is trained in float32.

        Args:
            tokens: None for a host without a tokenizer, which is yet to be trained.

        Raises:
            PlaceNotFound: the host has no such block.
            BadInput: a chunk or the window is longer than what the host reads.
        """
        layers = config.layers or (len(adapter.layers) // 2,)
        layers = tuple(adapter.place("block_in", layer).layer or 0 for layer in layers)
        _check_lengths(config, adapter)
        memory = cls(config, layers, hidden=adapter.hidden_size).to(adapter.device)
        memory.adapter, memory.tokens = adapter, tokens
        if tokens is not None:
            for layer, size in state_sizes(adapter, tokens, layers).items():
                memory.layers[str(layer)].scale(size)  # type: ignore[operator]
        return memory

    @property
    def schedule(self) -> Schedule:
        """How it is trained, as its configuration says."""
        return Schedule.of(self.config)

    @property
    def parts(self) -> list[ImplicitLayer]:
        """What acts before each of its blocks."""
        return [part for part in self.layers.values() if isinstance(part, ImplicitLayer)]

    @property
    def first_block(self) -> int:
        """The first block whose input it changes."""
        return min(map(int, self.layers))

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """The inputs of its blocks."""
        return {adapter.place("block_in", int(n)): part for n, part in self.layers.items()}

    # -- a session -------------------------------------------------------------------------

    @torch.no_grad()
    def read(self, text: str | Sequence[int]) -> int:
        """Read a text, or its token ids, and hold what was written, also for the texts to come.

        What is held already stays, as far as the new writes leave it. The memory has to be
        attached. Returns the number of tokens.

        Raises:
            BadInput: the text is empty, or the memory is not attached.
            TrainingDiverged: the host's states are no numbers; what was held is held still.
        """
        adapter = self._host()
        ids = self._ids(text) if isinstance(text, str) else list(text)
        if not ids:
            raise BadInput("there is nothing to read in an empty text")
        before = [part.held for part in self.parts]
        try:
            with self._gathering():
                for window in _split(ids, self.config.window or adapter.max_length()):
                    given = torch.tensor([window], device=adapter.device)
                    adapter.decoder(input_ids=given, use_cache=False)
        except BaseException:
            for part, held in zip(self.parts, before, strict=True):
                part.held = held
            raise
        return len(ids)

    def reset(self) -> None:
        """Hold nothing: sequences begin as if nothing had ever been read."""
        for part in self.parts:
            part.held = None

    @property
    def held(self) -> dict[int, Slots]:
        """What sequences begin with, by block; empty where nothing is held."""
        return {int(n): part.held for n, part in self.layers.items() if part.held is not None}  # type: ignore[misc]

    def save(self, path: str | Path) -> None:
        """Write what is held to a safetensors file; the trained tensors are stored elsewhere."""
        tensors = {
            f"{layer}.{name}": tensor.contiguous().cpu()
            for layer, slots in self.held.items()
            for name, tensor in slots.tensors().items()
        }
        try:
            save_file(tensors, path, {"format": FORMAT, "made_with": self._made_with()})
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path} could not be written: {error}") from error

    def load(self, path: str | Path) -> None:
        """Hold what `save` wrote: the same logits, bit for bit.

        Raises:
            StoreError, StoreDamaged: there is no such file, or it is something else.
            HostMismatch: it was written with other trained tensors.
        """
        tensors, about = _read_file(Path(path))
        if about.get("format") != FORMAT:
            raise StoreDamaged(f"{path} holds no slots of an implicit memory")
        if about.get("made_with") != self._made_with():
            raise HostMismatch(
                f"{path} was written by a memory with other trained tensors; load those first"
            )
        held: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            layer, _, what = name.partition(".")
            held.setdefault(layer, {})[what] = tensor
        for layer, part in self.layers.items():
            assert isinstance(part, ImplicitLayer)
            part.held = Slots.of(held[layer]).to(part.out.device) if layer in held else None

    # -- for training and measuring --------------------------------------------------------

    @contextmanager
    def windows(self, each: int, *, others: int = 0) -> Iterator[None]:
        """While this lasts, rows of a call are consecutive windows of texts, so many a text.

        The host's attention sees a window alone; what a window wrote is read from the next one on.
        Gradients flow through the writes of all windows.

        Args:
            others: read the slots of the text so many texts further, as a control.
        """
        if each < 1:
            raise BadInput(f"a text has {each} windows; it has to have at least 1")
        for part in self.parts:
            part.windows = Windows(each, others)
        try:
            yield
        finally:
            for part in self.parts:
                part.windows = None

    @contextmanager
    def watched(self) -> Iterator[list[Usage]]:
        """While this lasts, the weights of reads and writes are kept, layer by layer."""
        found = []
        for part in self.parts:
            part.usage = Usage([], [], [], [])
            found.append(part.usage)
        try:
            yield found
        finally:
            for part in self.parts:
                part.usage = None

    @contextmanager
    def _gathering(self) -> Iterator[None]:
        for part in self.parts:
            part.gathers = True
        try:
            yield
        finally:
            for part in self.parts:
                part.gathers = False

    def _host(self) -> Adapter:
        if self.adapter is None or not any(one is self for one in attached(self.adapter.model)):
            raise BadInput("this memory is not attached to its host; attach it before it reads")
        return self.adapter

    def _ids(self, text: str) -> list[int]:
        if self.tokens is None:
            raise BadInput("this memory was opened without a tokenizer; let it read token ids")
        return self.tokens.encode(text)

    def _made_with(self) -> str:
        """Changes with everything that slots were computed by, but for the host."""
        digest = hashlib.sha256(repr(self.config).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def _check_lengths(config: ImplicitConfig, adapter: Adapter) -> None:
    longest = adapter.max_length()
    for name in ("chunk", "window"):
        asked = getattr(config, name)
        if longest is not None and asked is not None and asked > longest:
            raise BadInput(f"{name} is {asked} tokens, and the host reads {longest} at most")


def _split(ids: Sequence[int], window: int | None) -> Iterator[Sequence[int]]:
    size = window or len(ids)
    return (ids[i : i + size] for i in range(0, len(ids), size))


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    except SafetensorError as error:
        raise StoreDamaged(f"{path} is no safetensors file ({error})") from error
