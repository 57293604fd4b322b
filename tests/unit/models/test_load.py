"""A host is found by its name, or the error says what to do."""

from __future__ import annotations

import logging

import pytest
import torch
from transformers.utils import logging as hub_logging

from engram_transformers.errors import BadInput, HostNotFound
from engram_transformers.models import load
from engram_transformers.models.load import known_hosts, load_host
from hosts import tiny, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my-llama"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_a_folder_is_a_host(folder):
    host = load_host(str(folder))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(host.model(ids).logits, tiny("llama")(ids).logits)
    assert host.identity.id == "my-llama"
    assert not host.model.training
    assert host.tokenizer.padding_side == "left"
    assert host.tokenizer.pad_token_id == 0


def test_dtype_is_a_choice_and_the_fingerprint_does_not_mind(folder):
    wide, narrow = load_host(str(folder)), load_host(str(folder), dtype="bfloat16")
    assert (wide.model.dtype, narrow.model.dtype) == (torch.float32, torch.bfloat16)
    assert wide.identity == narrow.identity


def test_a_tokenizer_without_padding_pads_with_its_end(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    host = load_host(str(folder))
    assert host.tokenizer.pad_token_id == host.tokenizer.eos_token_id
    assert len(host.tokenizer) == 400


def test_loading_is_silent_and_leaves_the_settings_alone(folder, capfd):
    before = (hub_logging.get_verbosity(), hub_logging.is_progress_bar_enabled())
    load_host(str(folder))
    assert capfd.readouterr() == ("", "")
    assert (hub_logging.get_verbosity(), hub_logging.is_progress_bar_enabled()) == before
    assert logging.getLogger("transformers").level == before[0]


@pytest.mark.parametrize("name", ["smolm2-135m", "smollm2", "SmolLM2-135"])
def test_a_misspelt_name_is_answered_with_the_right_one(name):
    with pytest.raises(HostNotFound, match="Did you mean 'smollm2-135m'"):
        load_host(name)


def test_a_name_that_nobody_knows_says_what_can_be_used():
    with pytest.raises(HostNotFound, match=r"no host 'someone/nothing'.*Use 'smollm2-135m'"):
        load_host("someone/nothing")


def test_a_misspelt_path_is_answered_with_its_neighbour(folder):
    with pytest.raises(HostNotFound, match=r"Did you mean .*my-llama\?"):
        load_host(str(folder.parent / "my-lama"))


def test_a_folder_without_a_model_points_to_the_model_below(folder):
    with pytest.raises(HostNotFound, match=r"no config\.json.*Did you mean .*my-llama\?"):
        load_host(str(folder.parent))


def test_a_file_that_is_no_gguf(folder):
    with pytest.raises(HostNotFound, match="Pass the folder"):
        load_host(str(folder / "config.json"))


def test_an_encoder_decoder_is_refused(tmp_path):
    from transformers import T5Config

    T5Config(d_model=16, num_layers=1).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="encoder-decoder"):
        load_host(str(tmp_path))


def test_a_model_that_cannot_answer_is_refused(tmp_path):
    from transformers import BertConfig

    BertConfig(hidden_size=16, architectures=["BertModel"]).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="is a BertModel, which cannot answer"):
        load_host(str(tmp_path))


def test_a_checkpoint_with_missing_weights_is_refused(folder):
    model = tiny("llama")
    kept = {k: v for k, v in model.state_dict().items() if "layers.1.mlp" not in k}
    model.save_pretrained(folder, state_dict=kept)
    with pytest.raises(BadInput, match=r"lacks the weights model\.layers\.1\.mlp"):
        load_host(str(folder))


def test_a_truncated_checkpoint_is_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BadInput, match="weights cannot be loaded"):
        load_host(str(folder))


def test_pickled_weights_are_never_read(folder):
    (folder / "model.safetensors").unlink()
    torch.save(tiny("llama").state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="weights cannot be loaded"):
        load_host(str(folder))


def test_a_host_without_a_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BadInput, match="tokenizer cannot be loaded"):
        load_host(str(folder))


@pytest.mark.parametrize("options", [{"dtype": "float33"}, {"device": "nowhere"}])
def test_an_option_that_is_not_there_is_refused(folder, options):
    with pytest.raises(BadInput, match="Use"):
        load_host(str(folder), **options)


def test_known_hosts_say_what_to_install(monkeypatch, tmp_path):
    def missing():
        raise HostNotFound("not installed")

    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path))
    monkeypatch.setattr(load, "embedded_gguf", missing)
    assert [(host.name, host.where, host.converted) for host in known_hosts()] == [
        ("smollm2-135m", None, False)
    ]
