"""Where a model's structure does not say enough: exceptions, by ``config.model_type``.

Everything in `adapter.py` is found by structure. A model type is listed here only when that
rule gives the wrong module for it, or none; a path is relative to the module named in the field.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirk:
    """Dotted paths that replace what the structural rules would find; None keeps the rule."""

    decoder: str | None = None
    "From the model to the module that receives the token ids and the cache."
    layers: str | None = None
    "From the decoder to the list of blocks."
    final_norm: str | None = None
    "From the decoder to the last norm before the head."
    mlp_out: str | None = None
    "From a block to the linear layer that ends its feed-forward."


NONE = Quirk()

QUIRKS: dict[str, Quirk] = {
    # The norm is registered before the blocks although it runs after them.
    "opt": Quirk(final_norm="final_layer_norm"),
    # The final norm is called as if it belonged to the embeddings.
    "lfm2": Quirk(final_norm="embedding_norm"),
    "lfm2_moe": Quirk(final_norm="embedding_norm"),
    "lfm3": Quirk(final_norm="embedding_norm"),
    # `decoder` is the name of its output layer.
    "modernbert-decoder": Quirk(decoder="model"),
    # Each member of its list holds two of the blocks that the configuration counts.
    "longcat_flash": Quirk(layers="layers"),
}


def quirk_of(model_type: str) -> Quirk:
    """The exceptions of a model type; an empty `Quirk` for nearly all of them."""
    return QUIRKS.get(model_type, NONE)
