"""The samples of each batch: a function of the seed and the batch's number, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from project.data.permutation import permuted


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
