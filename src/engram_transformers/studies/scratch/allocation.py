"""The curve that the paper is about: the loss over the share of extra parameters in tables."""

from __future__ import annotations

from collections.abc import Sequence

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.studies.estimates import over_runs
from engram_transformers.studies.scratch.variants import share_of
from engram_transformers.studies.study import Done

Losses = dict[int, dict[int, float]]
"Losses by percent of the extra parameters in the Engram, and by seed."


def losses_by_share(text: str, done: Sequence[Done]) -> Losses:
    """Of all runs with the same parameters; 0 % is the wider decoder without an Engram."""
    found: Losses = {}
    for one in done:
        own = one.unit.settings
        share = share_of(own["variant"])
        if own["text"] == text and share is not None:
            found.setdefault(share, {})[own["seed"]] = one.measured["loss"]
    return dict(sorted(found.items()))


def shape_of_curve(text: str, losses: Losses) -> str:
    """Whether the loss is lowest between the ends, as the paper's is; "" without both and a middle.

    A U needs a share in between whose mean is below those of both ends, and is shown only where
    both differences, of runs with the same seed, have intervals below zero.
    """
    if len(losses) < 3 or 0 not in losses:
        return ""
    means = {share: over_runs(list(by.values())).value for share, by in losses.items()}
    ends = (0, max(means))
    inner = min(means.keys() - set(ends), key=means.__getitem__)
    told = ", ".join(f"{mean:.3f} at {share} %" for share, mean in means.items())
    return (
        f"{text}: in the paper the loss over the share of the parameters that are in tables is a "
        f"U, lowest between the ends. Here it is {told}: {_verdict(losses, inner, ends)}"
    )


def _verdict(losses: Losses, inner: int, ends: tuple[int, int]) -> str:
    """What the best share in between says against both ends."""
    gains = [_less(losses, inner, end) for end in ends]
    differences = " and ".join(
        f"{_told(gain)} against {end} %" for gain, end in zip(gains, ends, strict=True)
    )
    between = f"the best share in between, {inner} %, has by seed {differences}"
    if any(gain.value >= 0 for gain in gains):
        shown = any(gain.low > 0 for gain in gains if gain.n > 1)
        surely = "no U" if shown else "no U, though these seeds do not exclude one"
        return f"{surely}; {between}."
    if all(gain.n > 1 and gain.high < 0 for gain in gains):
        return f"the U is there; {between}."
    return f"the means form a U, which these seeds do not show; {between}."


def _less(losses: Losses, share: int, other: int) -> Measure:
    """The loss of one share less that of another, over the seeds that have both."""
    seeds = losses[share].keys() & losses[other].keys()
    return over_runs([losses[share][seed] - losses[other][seed] for seed in sorted(seeds)])


def _told(gain: Measure) -> str:
    between = f" ({gain.low:.3f} to {gain.high:.3f})" if gain.n > 1 else ""
    return f"{gain.value:+.3f} nats{between}"
