"""The adapter finds the same parts that a reader of each model's source would name."""

from __future__ import annotations

import copy

import pytest
import torch

from engram_transformers.errors import PlaceNotFound
from engram_transformers.models.adapter import PLACES, Adapter, Place
from hosts import ARCHITECTURES, HIDDEN, MIXTURES, VOCAB, tiny

MLP_OUT = {
    "gpt2": "transformer.h.1.mlp.c_proj",
    "gpt_neox": "gpt_neox.layers.1.mlp.dense_4h_to_h",
    "phi": "model.layers.1.mlp.fc2",
    "opt": "model.decoder.layers.1.fc2",
    "falcon": "transformer.h.1.mlp.dense_4h_to_h",
    "bloom": "transformer.h.1.mlp.dense_4h_to_h",
    "starcoder2": "model.layers.1.mlp.c_proj",
}


def path_of(model, module):
    return next(path for path, part in model.named_modules() if part is module)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_output_weight_over_the_final_norm_ranks_tokens_as_the_logits_do(name):
    model = tiny(name)
    adapter = Adapter(model)
    seen = []
    adapter.final_norm.register_forward_hook(lambda module, x, y: seen.append(y))
    ids = torch.randint(3, VOCAB, (3, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids).logits
    rows = adapter.output_weight()
    ours = seen[0] @ rows.T
    if adapter.head_bias is not None:
        ours = ours + adapter.head_bias
    assert rows.shape == (adapter.vocab_size, adapter.hidden_size) == (VOCAB, HIDDEN)
    assert torch.equal(ours.argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_norm_gain_is_what_the_final_norm_multiplies_by(name):
    adapter = Adapter(tiny(name))
    stored = adapter.final_norm.weight.detach()
    expected = stored + 1 if name == "gemma2" else stored
    torch.testing.assert_close(adapter.norm_gain(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decoder_takes_ids_and_layers_are_the_blocks(name):
    model = tiny(name)
    adapter = Adapter(model)
    with torch.no_grad():
        out = adapter.decoder(input_ids=torch.tensor([[5, 6, 7]]), attention_mask=torch.ones(1, 3))
    assert out.last_hidden_state.shape == (1, 3, HIDDEN)
    assert len(adapter.layers) == 2
    assert adapter.place("block_in", -1).module is adapter.layers[1]


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - set(MIXTURES)))
def test_mlp_out_is_the_last_linear_of_the_feed_forward(name):
    model = tiny(name)
    place = Adapter(model).place("mlp_out", 1)
    assert path_of(model, place.module) == MLP_OUT.get(name, "model.layers.1.mlp.down_proj")


@pytest.mark.parametrize("name", MIXTURES)
def test_fused_experts_have_no_mlp_out(name):
    with pytest.raises(PlaceNotFound, match=r"no 'mlp_out'.*experts are fused.*'block_out'"):
        Adapter(tiny(name)).place("mlp_out", 0)


def test_places_are_equal_when_they_name_the_same_act():
    adapter = Adapter(tiny("llama"))
    assert adapter.place("block_out", -1) == adapter.place("block_out", 1)
    assert len({adapter.place("block_in", 0), adapter.place("block_out", 0)}) == 2
    assert [adapter.place(name, 0).before for name in PLACES] == [True, False, False, False]
    assert adapter.place("final") == Place("final", None, adapter.final_norm)


@pytest.mark.parametrize("layer", [None, 2, -3])
def test_a_layer_that_is_not_there_is_refused(layer):
    with pytest.raises(PlaceNotFound, match=f"layer {layer}; llama has 2 blocks"):
        Adapter(tiny("llama")).place("block_out", layer)


def test_a_misspelt_place_is_answered_with_the_nearest():
    with pytest.raises(PlaceNotFound, match="Use place='mlp_out'"):
        Adapter(tiny("llama")).place("mlp_outt", 0)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(PlaceNotFound, match="AutoModelForCausalLM"):
        Adapter(tiny("llama").model)


def test_a_host_that_ends_without_a_norm_has_no_final_place():
    adapter = Adapter(tiny("opt", do_layer_norm_before=False))
    with pytest.raises(PlaceNotFound, match=r"opt has no 'final'"):
        adapter.place("final")
    assert adapter.place("block_out", -1).layer == 1


def test_a_projection_before_the_head_is_folded_into_the_rows():
    model = tiny("opt", word_embed_proj_dim=16)
    adapter = Adapter(model)
    seen = []
    adapter.final_norm.register_forward_hook(lambda module, x, y: seen.append(y))
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7, 8]])).logits
        torch.testing.assert_close(seen[0] @ adapter.output_weight().T, logits)


def test_context_length_is_read_where_there_is_one():
    assert Adapter(tiny("gpt2")).max_length() == 512
    assert Adapter(tiny("bloom")).max_length() is None


def test_a_copy_of_the_adapter_points_into_the_copied_host():
    copied = copy.deepcopy(Adapter(tiny("llama")))
    assert copied.place("final").module is copied.model.model.norm
