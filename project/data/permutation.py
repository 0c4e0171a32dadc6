"""A random permutation of any length that is computed, not stored: a Feistel network over the indices.

A stored permutation takes eight bytes an index on every rank and depends on the library that drew it. This one takes a
few integer operations an index, starts anywhere, and is the same on every machine and in every version.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInts = npt.NDArray[np.uint64]

_ROUNDS = 6


def permuted(indices: npt.ArrayLike, size: int, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The images of `indices` under a permutation of `range(size)` that `key` chooses.

    A Feistel network permutes a range whose length is a power of four. An index that lands outside of `size` is mapped
    again until it lands inside (cycle walking), which keeps the map one-to-one. That takes fewer than four steps on
    average, because the power is the smallest that is at least `size`.
    """
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    round_keys = [_round_key(key, number) for number in range(_ROUNDS)]
    values = np.atleast_1d(np.asarray(indices, dtype=np.uint64)).copy()
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        values[outside] = _network(values[outside], half_bits, round_keys)
        outside = values >= np.uint64(size)
    return values.astype(np.int64)


def _network(values: UInts, half_bits: np.uint64, round_keys: list[np.uint64]) -> UInts:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right ^ round_key) & mask)
    return (left << half_bits) | right


def _round_key(key: tuple[int, ...], number: int) -> np.uint64:
    state = np.zeros(1, dtype=np.uint64)
    for part in (*key, number):
        state = _mix(state ^ np.uint64(part % 2**64))
    return np.uint64(state[0])


def _mix(x: UInts) -> UInts:
    """The output function of splitmix64 (Steele, Lea and Flood 2014), modulo 2**64; arrays wrap silently."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
