"""Which rows a token reads: multiplicative hashes of the last tokens, by one rule for all layouts.

With ``x_k`` the token k places back, ``m_k`` odd multipliers and ``p`` the rows of a head's table:

    mix_n = x_0 m_0 ^ x_1 m_1 ^ ... ^ x_{n-1} m_{n-1}        row = mix_n mod p

Published layouts differ in what an id is (compressed or not), where the multipliers come from,
which tables there are, and what stands in for tokens before the beginning. All numbers are int64
and no product overflows, since the multipliers are below ``2^63 / ids``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from engram_transformers.errors import BadInput

Ids = NDArray[np.int64]
LARGEST = 2**63 - 1
MANY = 256
"Tokens from which heads are computed one by one: a few tokens are quicker all at once."
_STEP = 10_007
"Between the seeds of two layers."
_SEED_PRIMES = (17, 31, 53, 79, 107, 131, 157, 181)
"Multipliers of the third seed's heads."
_BELOW = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"Witnesses that settle whether a number below 3.3e24 is a prime (Sorenson and Webster, 2015)."


@dataclass(frozen=True)
class Layout:
    """How tokens become rows in one layer: plain data."""

    orders: tuple[int, ...]
    "Lengths of the n-grams, ascending."
    multipliers: tuple[tuple[int, ...], ...]
    "One row for all heads or one a head; number k belongs to the token k places back."
    moduli: tuple[tuple[int, ...], ...]
    "(orders, heads): rows of each table."
    shared: bool = False
    "Whether all heads read one and the same table."

    @property
    def longest(self) -> int:
        """Tokens of the longest n-gram."""
        return self.orders[-1]

    @property
    def slots(self) -> int:
        """Rows that each token reads."""
        return sum(len(heads) for heads in self.moduli)

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return self.moduli[0][0] if self.shared else sum(map(sum, self.moduli))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each head's rows begin among all rows, by slot."""
        sizes = [size for heads in self.moduli for size in heads]
        return (0,) * len(sizes) if self.shared else tuple(accumulate([0, *sizes[:-1]]))

    def rows_of(self, past: Sequence[Ids]) -> Ids:
        """(n, slots): the rows that tokens read, heads of one order side by side.

        Args:
            past: for each place back, the newest first, the (n,) ids there; none is negative.
        """
        factors = np.array(self.multipliers)[..., None]
        mix = past[0] * factors[:, 0]  # (1 or heads, n)
        found, slot = np.empty((len(past[0]), self.slots), np.int64), 0
        for k in range(self.longest):
            if k:
                mix = mix ^ (past[k] * factors[:, k])
            if k + 1 in self.orders:
                sizes = self.moduli[self.orders.index(k + 1)]
                slots = slice(slot, slot + len(sizes))
                _reduce(mix, sizes, self.offsets[slots], out=found[:, slots])
                slot = slots.stop
        return found


def _reduce(mix: Ids, sizes: Sequence[int], offsets: Sequence[int], *, out: Ids) -> None:
    """``out[i, h] = mix[h, i] mod sizes[h] + offsets[h]``; nothing is negative."""
    if mix.shape[1] < MANY:
        rows = mix % np.array(sizes)[:, None] + np.array(offsets)[:, None]
        np.copyto(out, rows.T)
        return
    # Division by one number is vectorised, taking its remainder is not.
    for head, (size, offset) in enumerate(zip(sizes, offsets, strict=True)):
        numbers = mix[head % len(mix)]
        quotient = numbers // size
        quotient *= size
        np.subtract(numbers, quotient, out=quotient)
        quotient += offset
        out[:, head] = quotient


@dataclass(frozen=True)
class Variant:
    """A published way to address: what it takes to lay out the tables of a host."""

    orders: tuple[int, ...]
    multiply: Callable[[int, int, int], tuple[int, ...]]
    "Multipliers, given a seed, the number of ids and the longest n-gram."
    seed: int
    "Of the multipliers, unless another is asked for."
    compressed: bool
    resets: bool
    "Whether n-grams stop at a token that ends a text."
    begins_with: str
    "The token that stands in for those before the beginning: `pad` or `end`."
    by_index: bool = False
    "Whether the layers are counted among themselves (True) or among all blocks."


def pcg64(seed: int, ids: int, longest: int) -> tuple[int, ...]:
    """Odd multipliers as DeepSeek draws them."""
    high = max(1, LARGEST // ids // 2)
    drawn = np.random.default_rng(seed).integers(0, high, size=longest, dtype=np.int64)
    return tuple(int(number) * 2 + 1 for number in drawn)


def splitmix64(seed: int, ids: int, longest: int) -> tuple[int, ...]:
    """Odd multipliers as Qwen draws them."""
    high = max(1, LARGEST // ids // 2)
    return tuple(
        2 * (_mixed(seed + 0x9E3779B97F4A7C15 * (index + 2)) % high) + 1 for index in range(longest)
    )


def _mixed(value: int) -> int:
    """The output function of SplitMix64."""
    mask = 2**64 - 1
    value &= mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


VARIANTS = {
    "deepseek": Variant((2, 3), pcg64, 0, compressed=True, resets=False, begins_with="pad"),
    "deepseek-v4.1": Variant((2, 3, 4), pcg64, 0, compressed=True, resets=False, begins_with="pad"),
    "qwen": Variant(
        (2, 3), splitmix64, 1234, compressed=False, resets=True, begins_with="end", by_index=True
    ),
}


def lay_out(
    name: str,
    *,
    layers: Sequence[int],
    ids: int,
    rows: int,
    heads: int,
    orders: Sequence[int] | None = None,
    seed: int | None = None,
) -> dict[int, Layout]:
    """The layouts of the layers that a memory acts at, by layer.

    Args:
        name: a published variant, or `unigram`.
        ids: how many ids there are, after compression.
        rows: of each head's table at least; no two heads of a memory have equally many.
    """
    if name == "unigram":
        return dict.fromkeys(layers, unigram(rows=rows, heads=heads, orders=orders))
    variant = VARIANTS[name]
    wanted = tuple(sorted(orders or variant.orders))
    sizes = primes_from(rows)
    layouts = {}
    for index, layer in enumerate(layers):
        base = variant.seed if seed is None else seed
        number = index if variant.by_index else layer
        drawn = variant.multiply(base + _STEP * number, ids, wanted[-1])
        moduli = tuple(tuple(next(sizes) for _ in range(heads)) for _ in wanted)
        layouts[layer] = Layout(wanted, (drawn,), moduli)
    return layouts


def unigram(*, rows: int, heads: int, orders: Sequence[int] | None = None) -> Layout:
    """The third seed's hash, ``id * prime mod rows`` in one table: a baseline.

    Whatever two tokens one head confuses, all heads confuse: the modulus is the same.
    """
    if tuple(orders or (1,)) != (1,):
        raise BadInput(f"the unigram layout hashes single tokens; orders are {tuple(orders or ())}")
    if heads > len(_SEED_PRIMES):
        raise BadInput(f"the unigram layout has {len(_SEED_PRIMES)} heads at most, not {heads}")
    return Layout((1,), tuple((p,) for p in _SEED_PRIMES[:heads]), ((rows,) * heads,), shared=True)


def primes_from(least: int) -> Iterator[int]:
    """The primes from `least` on, in order."""
    number = max(2, least)
    while True:
        if is_prime(number):
            yield number
        number += 1


def is_prime(number: int) -> bool:
    """Whether a number is a prime: by division where it is small, else by Miller and Rabin."""
    if number < 2:
        return False
    if number < 10_000:
        return all(number % divisor for divisor in range(2, isqrt(number) + 1))
    if any(number % witness == 0 for witness in _BELOW):
        return False
    twos = ((number - 1) & (1 - number)).bit_length() - 1
    return all(_passes(number, witness, twos=twos) for witness in _BELOW)


def _passes(number: int, witness: int, *, twos: int) -> bool:
    power = pow(witness, (number - 1) >> twos, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False
