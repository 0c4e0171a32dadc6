"""The samples of each batch: a function of the seed and the batch's number, and of nothing else."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

UInts = npt.NDArray[np.uint64]
_ROUNDS = 6  # of the Feistel network


class StepSampler:
    """The sample indices of one replica's rows of each global batch, for `DataLoader(batch_sampler=...)`.

    Global batch `step` is the same under every layout; replica `dp_rank` of `dp_size` takes the `dp_rank`-th of its
    `dp_size` equal parts. Each pass over the samples has an order of its own, keyed by (`seed`, pass), and drops the
    samples that do not fill a batch. Iterating yields `len(self)` batches from `position` on, across the end of a pass
    if need be, because a Trainer's epoch may be shorter than a pass.

    `position` counts global batches from the start of training. The sampler does not advance it: with worker
    processes, a sampler runs ahead of training. The loader sets it.

    `repeat_first`, for overfitting, restricts training to the first so many batches, in a fixed order.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int = 0,
        dp_rank: int = 0,
        dp_size: int = 1,
        shuffle: bool = True,
        repeat_first: int | None = None,
        position: int = 0,
    ) -> None:
        if batch_size % dp_size:
            raise ValueError(f"data.batch_size={batch_size} is not a multiple of the {dp_size} replicas")
        if num_samples < batch_size:
            raise ValueError(f"{num_samples} samples do not fill one batch of data.batch_size={batch_size}")
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.repeat_first = repeat_first
        self.position = position
        rows = batch_size // dp_size
        self._rows = range(dp_rank * rows, (dp_rank + 1) * rows)

    def __len__(self) -> int:
        """The number of full batches in one pass."""
        return self.num_samples // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        start = self.position
        for step in range(start, start + len(self)):
            yield self.batch(step)

    def batch(self, step: int) -> list[int]:
        """The indices of this replica's samples of global batch `step`."""
        if self.repeat_first is not None:
            step %= self.repeat_first
        number_of_pass, step_of_pass = divmod(step, len(self))
        first = step_of_pass * self.batch_size
        places = [first + row for row in self._rows]
        if not self.shuffle:
            return places
        return [int(index) for index in permuted(places, self.num_samples, (self.seed, number_of_pass))]


class StepLoader(DataLoader[Any]):
    """A `DataLoader` that sets its sampler's `position` to the number of batches handed out, however far worker
    processes run ahead."""

    def __init__(self, sampler: StepSampler, **options: Any) -> None:
        super().__init__(batch_sampler=sampler, **options)
        self._steps = sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            self._steps.position += 1
            yield batch

    # Lightning warns about a loader without these two methods when it resumes. The position itself is in the
    # datamodule's state: Lightning does not restore loaders when it resumes at the end of an epoch.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        del state_dict


def permuted(indices: npt.ArrayLike, size: int, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """The images of `indices` under a permutation of `range(size)` that `key` chooses.

    It is computed, not stored: a stored permutation takes eight bytes an index on every rank and depends on the library
    that drew it. This one starts anywhere, and is the same on every machine and in every version.

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
