"""A host, bare or attached, as a model of lm-evaluation-harness: the check from outside.

    import lm_eval
    with host.open_memory("facts"):
        lm_eval.simple_evaluate(outside_model(host.adapter, host.tokens), tasks=["piqa"])

Needs the extra `outside`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engram_transformers.errors import MissingExtra, UnsupportedCall
from engram_transformers.evaluation.generate import generate
from engram_transformers.evaluation.harm import (
    Likelihood,
    loglikelihoods,
    pair_ids,
    prefix_of,
    rolling_windows,
)
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import HostTokens

WINDOW = 2048
"Tokens of running text that are read at once by a host whose positions have no limit."


def outside_model(adapter: Adapter, tokens: HostTokens) -> Any:
    """An `lm_eval.api.model.LM` of the host, with whatever is attached to it when it is asked.

    Raises:
        MissingExtra: lm-evaluation-harness is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        raise MissingExtra(
            "lm-evaluation-harness is not installed; "
            "use: pip install 'engram-transformers[outside]'"
        ) from error

    class Outside(LM):  # type: ignore[misc]
        """What the tool calls; each request carries its arguments in `args`."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            pairs = [pair_ids(tokens, *request.args) for request in requests]
            return [(one.logprob, one.greedy) for one in loglikelihoods(adapter, pairs)]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return [_rolling(adapter, tokens, request.args[0]) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            return [_until(adapter, tokens, *request.args) for request in requests]

    return Outside()


def _rolling(adapter: Adapter, tokens: HostTokens, text: str) -> float:
    window = adapter.max_length() or WINDOW
    pieces = rolling_windows(tokens.encode(text), prefix_of(tokens), window)
    found: list[Likelihood] = loglikelihoods(adapter, pieces)
    return sum(one.logprob for one in found)


def _until(adapter: Adapter, tokens: HostTokens, prompt: str, options: dict[str, Any]) -> str:
    """A greedy answer up to the first of the texts that end it."""
    if options.get("do_sample") or options.get("temperature"):
        raise UnsupportedCall("only greedy answers are written here: drop do_sample, temperature")
    ids = tokens.prompt_ids(prompt, form="plain")
    limit = int(options.get("max_gen_toks", 256))
    [written] = generate(adapter, [ids], max_new_tokens=limit, stop=tokens.stop)
    text = tokens.decode([token for token in written if token not in tokens.special])
    until = options.get("until") or []
    for end in [until] if isinstance(until, str) else until:
        text = text.partition(end)[0] if end else text
    return text
