"""A fingerprint stays the same wherever the host runs, and changes with the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engram_transformers.models.fingerprint import fingerprint
from hosts import ARCHITECTURES, tiny, tiny_tokenizer

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bfloat16_and_float32_of_one_file_are_one_host(name):
    model = tiny(name)
    print_ = fingerprint(model, tiny_tokenizer())
    assert len(print_) == 32 and set(print_) <= set("0123456789abcdef")
    assert fingerprint(model.to(torch.bfloat16), tiny_tokenizer()) == print_
    assert fingerprint(model.float(), tiny_tokenizer()) == print_


def test_every_architecture_has_its_own():
    assert len({fingerprint(tiny(name), tiny_tokenizer()) for name in ARCHITECTURES}) == len(
        ARCHITECTURES
    )


@pytest.mark.parametrize(
    "path", ["model.embed_tokens", "model.layers.1.mlp.up_proj", "model.norm", "model.layers.0"]
)
def test_other_weights_are_another_host(path):
    model, before = tiny("llama"), fingerprint(tiny("llama"), tiny_tokenizer())
    with torch.no_grad():
        for parameter in model.get_submodule(path).parameters():
            parameter.mul_(1.02)
    assert fingerprint(model, tiny_tokenizer()) != before


def test_another_tokenizer_is_another_host():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<new>"])
    assert fingerprint(tiny("llama"), tokenizer) != fingerprint(tiny("llama"), tiny_tokenizer())


def test_hooks_and_names_do_not_matter():
    model = tiny("qwen2")
    before = fingerprint(model, tiny_tokenizer())
    model.model.layers[1].register_forward_hook(lambda module, x, y: y)
    model.config._name_or_path = "elsewhere"
    model.config.transformers_version = "9.9"
    assert fingerprint(model, tiny_tokenizer()) == before


def test_another_process_finds_the_same():
    code = (
        "from hosts import tiny, tiny_tokenizer\n"
        "from engram_transformers.models.fingerprint import fingerprint\n"
        "print(fingerprint(tiny('llama'), tiny_tokenizer()))"
    )
    path = os.pathsep.join([str(TESTS), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == fingerprint(tiny("llama"), tiny_tokenizer())
