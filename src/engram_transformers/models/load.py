"""Loads a host by name: the embedded one, a folder, a GGUF file or a Hugging Face id."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engram_transformers.errors import BadInput, HostNotFound
from engram_transformers.models.cache import cache_dir, intact
from engram_transformers.models.embedded import EMBEDDED, converted, embedded_gguf, folder_of
from engram_transformers.models.fingerprint import fingerprint
from engram_transformers.models.quiet import quiet
from engram_transformers.models.tokens import HostTokens, stop_token
from engram_transformers.types import HostIdentity

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ANSWERS = re.compile(r"CausalLM|LMHead|ConditionalGeneration")
# Never weights in pickles, and code only for those who asked for it.
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass
class LoadedHost:
    """A model in eval mode, its tokenizer (padding on the left), and who they are."""

    model: Any
    tokenizer: Any
    identity: HostIdentity

    @staticmethod
    def of(model: Any, tokenizer: Any = None) -> LoadedHost:
        """A model that is there already, with the tokenizer that it was published with.

        Raises:
            BadInput: no tokenizer was passed, and none is found under the model's name.
        """
        name = str(getattr(model, "name_or_path", "") or "")
        tokenizer = tokenizer if tokenizer is not None else _tokenizer_named(name)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        own = _name(name) if name else type(model).__name__
        return LoadedHost(model, tokenizer, _identity(own, model, tokenizer))

    @property
    def tokens(self) -> HostTokens:
        """How it is spoken to."""
        stop = stop_token(self.tokenizer, self.model.generation_config)
        return HostTokens(self.tokenizer, stop=stop)


@dataclass(frozen=True)
class KnownHost:
    """A host that can be loaded without a network, for lists."""

    name: str
    "What to pass to `load_host`."
    where: Path | None
    "The file or folder; None when the package that carries it is not installed."
    converted: bool
    bytes: int
    "Size on disk of everything that belongs to it."


def load_host(
    id: str,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
) -> LoadedHost:
    """The host called `id`: `smollm2-135m`, a folder, a .gguf file or a Hugging Face id.

    `dtype` None keeps the type that the weights are stored in, `device` None loads to the CPU.
    Raises `HostNotFound` where nothing answers to the name, `BadInput` for a model that is not a
    causal language model, and what `converted` raises for a GGUF file.
    """
    kind, place = _dtype(dtype), _device(device)
    folder = _resolve(str(id), code=trust_remote_code)
    with quiet():
        config = _config(folder, id, trust_remote_code)
        model = _model(folder, id, config, kind, trust_remote_code)
        tokenizer = _tokenizer(folder, id, trust_remote_code)
    model = model.to(place).eval()
    if model.generation_config is not None and model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return LoadedHost(model, tokenizer, _identity(_name(str(id)), model, tokenizer))


def _identity(name: str, model: Any, tokenizer: Any) -> HostIdentity:
    return HostIdentity(name, fingerprint(model, tokenizer), fingerprint(model))


def _tokenizer_named(name: str) -> Any:
    if not name:
        raise BadInput("this model has no name under which its tokenizer is found; pass tokenizer=")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"no tokenizer is found under the model's name {name!r}; pass tokenizer="
        ) from error


def known_hosts() -> list[KnownHost]:
    """The embedded host, and every GGUF file that was converted into the cache."""
    try:
        gguf = embedded_gguf()
    except HostNotFound:
        return [KnownHost(EMBEDDED, None, False, 0), *_converted_hosts(except_for=None)]
    folder = folder_of(gguf)
    made = intact(folder)
    size = gguf.stat().st_size + (_size(folder) if made else 0)
    return [KnownHost(EMBEDDED, gguf, made, size), *_converted_hosts(except_for=folder)]


def _converted_hosts(*, except_for: Path | None) -> list[KnownHost]:
    folders = sorted((cache_dir() / "hosts").glob("*/manifest.json"))
    return [
        KnownHost(str(found.parent), found.parent, True, _size(found.parent))
        for found in folders
        if found.parent != except_for and ".part-" not in found.parent.name
    ]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _resolve(id: str, *, code: bool) -> Path:
    """The local folder that holds the host, after converting or downloading where needed."""
    if id.lower() == EMBEDDED:
        return converted(embedded_gguf())
    path = Path(id).expanduser()
    if path.is_dir():
        return _checked_folder(path)
    if path.is_file() and path.suffix == ".gguf":
        return converted(path)
    if path.is_file():
        raise HostNotFound(f"{id} is a file but no .gguf. Pass the folder that it is in.")
    if _looks_local(id):
        raise HostNotFound(f"no file or folder {id}.{_near_path(path)}")
    return _from_hub(id, code=code)


def _looks_local(id: str) -> bool:
    return id.endswith(".gguf") or _HUB_ID.fullmatch(id) is None or id.startswith(".")


def _checked_folder(path: Path) -> Path:
    if (path / "config.json").is_file():
        return path
    ggufs = sorted(path.glob("*.gguf"))
    inside = sorted(found.parent for found in path.glob("*/config.json"))
    hint = f" Did you mean {(ggufs + inside)[0]}?" if ggufs or inside else ""
    raise HostNotFound(f"the folder {path} has no config.json, so it holds no model.{hint}")


def _near_path(path: Path) -> str:
    names = [found.name for found in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def _from_hub(id: str, *, code: bool) -> Path:
    from huggingface_hub import snapshot_download

    near = difflib.get_close_matches(id.lower(), [EMBEDDED, "smollm2"], n=1, cutoff=0.75)
    if near and "/" not in id:
        # No network is asked: a misspelt name must not find a stranger's model.
        raise HostNotFound(f"no host is called {id!r}. Did you mean {EMBEDDED!r}?")
    try:
        patterns = [*_FILES, "*.py"] if code else list(_FILES)
        found = snapshot_download(
            id, allow_patterns=patterns, ignore_patterns=["*/*", "consolidated*"]
        )
    except (OSError, ValueError) as error:
        raise HostNotFound(
            f"no host {id!r}: it is no folder here and Hugging Face did not give it "
            f"({type(error).__name__}). Use {EMBEDDED!r}, a local folder, a .gguf file, or "
            "check the id and the network."
        ) from error
    return _checked_folder(Path(found))


def _config(folder: Path, id: str, trust: bool) -> Any:
    """The configuration of something that continues text; `BadInput` for anything else."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise BadInput(_failed(id, "its config.json cannot be used", error)) from error
    named = config.architectures or []
    if config.is_encoder_decoder:
        raise BadInput(f"{id} is an encoder-decoder model. Use a causal language model.")
    if named and not any(_ANSWERS.search(name) for name in named):
        raise BadInput(f"{id} is a {named[0]}, which cannot answer. Use a causal language model.")
    return config


def _model(folder: Path, id: str, config: Any, dtype: torch.dtype | None, trust: bool) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=trust,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(_failed(id, "its weights cannot be loaded", error)) from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise BadInput(
            f"{id} lacks the weights {', '.join(missing[:3])} ({len(missing)} in all), so it would "
            "answer at random. Use a complete checkpoint of a causal language model."
        )
    return model


def _tokenizer(folder: Path, id: str, trust: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, padding_side="left", trust_remote_code=trust
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(_failed(id, "its tokenizer cannot be loaded", error)) from error
    if tokenizer.pad_token_id is None:
        # A new token would need a new row in the embeddings, and the host is never changed.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def _failed(id: str, what: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{id} is not a host that can be used: {what}. {reason}"


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise BadInput(f"no dtype is called {dtype!r}. Use {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def _device(device: str | torch.device | None) -> torch.device:
    try:
        place = torch.device(device or "cpu")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise BadInput(f"no device {device!r} on this machine. Use 'cpu' or 'cuda'.") from error
    return place


def _name(id: str) -> str:
    """A readable name for what was loaded; paths differ between machines, names do not."""
    if id.lower() == EMBEDDED:
        return EMBEDDED
    path = Path(id).expanduser()
    return path.stem if path.suffix == ".gguf" else path.resolve().name if path.is_dir() else id
