"""The routes that an option can name."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.bare import SilencedHost
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.fingerprint import fingerprint
from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.learned import LearnedGate, LearnedRoute
from engram_transformers.routing.route import Route
from engram_transformers.routing.rules import RuleRoute
from engram_transformers.routing.sure import UnsureRoute

RouteName = Literal["always", "rules", "learned", "unsure"]
ROUTES = ("always", "rules", "learned", "unsure")


def open_route(
    name: RouteName,
    *,
    adapter: Adapter,
    tokens: HostTokens,
    gate: LearnedGate | str | None = None,
    threshold: float | None = None,
) -> Route | None:
    """The route of this name; None for `always`, which needs none.

    Args:
        gate: the trained gate that `learned` decides by, or its directory.
        threshold: from which score on; None: the route's own.

    Raises:
        HostMismatch: the gate was trained for another host.
    """
    host = SilencedHost(adapter)
    route: RuleRoute | UnsureRoute | LearnedRoute | None = None
    if name == "rules":
        route = RuleRoute(tokens)
    elif name == "unsure":
        route = UnsureRoute(host, stop=tokens.stop)
    elif name == "learned":
        route = LearnedRoute(_gate(gate, adapter, tokens), host)
    return route if route is None or threshold is None else replace(route, threshold=threshold)


def _gate(gate: LearnedGate | str | None, adapter: Adapter, tokens: HostTokens) -> LearnedGate:
    if gate is None:
        raise BadInput(
            "route='learned' needs a trained gate; train one with `engram gate` and name its "
            "directory with route_gate"
        )
    if isinstance(gate, LearnedGate):
        return gate
    return LearnedGate.load(gate, host=fingerprint(adapter.model, tokens.tokenizer))
