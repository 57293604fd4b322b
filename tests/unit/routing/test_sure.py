"""Bypassing a host that is sure, and how sure it has to be."""

from __future__ import annotations

import numpy as np
import pytest

from engram_transformers.errors import BadInput
from engram_transformers.routing.sure import UnsureRoute, cutoff

PROMPT = np.array([3, 4, 5])


class Fixed:
    """A host that writes tokens of the same probabilities after everything."""

    def __init__(self, *probabilities: float) -> None:
        self.probabilities = list(probabilities)

    def state(self, prompt, layer):
        raise AssertionError("nobody asks for states")

    def written(self, prompt, *, tokens, stop):
        return self.probabilities[:tokens]


def test_open_where_the_host_is_not_sure() -> None:
    sure, unsure = UnsureRoute(Fixed(0.95)).decide(PROMPT), UnsureRoute(Fixed(0.4)).decide(PROMPT)
    assert not sure.open and sure.score == pytest.approx(0.95) and "0.950" in sure.reason
    assert unsure.open and unsure.score == pytest.approx(0.4)


def test_the_whole_answer_counts_and_not_how_it_begins() -> None:
    host = Fixed(1.0, 0.25, 0.25)
    assert UnsureRoute(host).sureness(PROMPT) == pytest.approx(0.0625 ** (1 / 3))
    assert UnsureRoute(host, tokens=1).sureness(PROMPT) == 1.0
    with pytest.raises(BadInput, match="first 0 tokens"):
        UnsureRoute(host, tokens=0)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(BadInput, match="no probability"):
        UnsureRoute(Fixed(0.5), threshold)


def test_the_cutoff_is_the_lowest_from_which_the_host_is_right_often_enough() -> None:
    sureness = [0.99, 0.95, 0.9, 0.8, 0.7, 0.5]
    right = [True, True, False, True, True, False]
    found = cutoff(sureness, right, wanted=0.8)
    assert (found.threshold, found.bypassed, found.bypassed_right) == (0.7, 5, 4)
    assert (found.n, found.right) == (6, 4)
    assert cutoff(sureness, right, wanted=1.0).threshold == 0.95


def test_equal_sureness_is_bypassed_together_or_not_at_all() -> None:
    assert cutoff([0.9, 0.9, 0.5], [True, False, False], wanted=0.9).bypassed == 0
    assert cutoff([0.9, 0.9, 0.5], [False, True, False], wanted=0.9).bypassed == 0
    assert cutoff([0.9, 0.9], [True, False], wanted=0.5).bypassed == 2


def test_a_host_that_is_never_right_is_never_bypassed() -> None:
    found = cutoff([0.9, 0.8], [False, False])
    assert found.threshold == 1.0 and found.bypassed == 0


def test_numbers_without_answers_are_refused() -> None:
    with pytest.raises(BadInput, match="2 numbers for 1"):
        cutoff([0.1, 0.2], [True])
    with pytest.raises(BadInput):
        cutoff([], [])
