"""Throughput: the time of a step, and the fraction of the hardware's peak FLOP/s that a run reaches (MFU)."""

from bisect import insort
from typing import NamedTuple

from project.spec.cost import train_flops_per_token
from project.spec.figures import WARMUP_STEPS
from project.spec.model import ModelConfig


class Lap(NamedTuple):
    """A step's start and end in nanoseconds, and the pauses between them, which do not belong to it."""

    start_ns: int
    end_ns: int
    pauses: tuple[tuple[int, int], ...]

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns - sum(end - start for start, end in self.pauses)) / 1e9


class StepClock:
    """Divides a run into optimizer steps, each from the end of the one before to its own, without the time between
    `pause` and `resume` (validation). The caller gives the times, so that they are the same on all ranks."""

    def __init__(self) -> None:
        self._since = 0
        self._paused_at: int | None = None
        self._pauses: list[tuple[int, int]] = []

    def start(self, now_ns: int) -> None:
        self._since, self._paused_at, self._pauses = now_ns, None, []

    def pause(self, now_ns: int) -> None:
        if self._paused_at is None:
            self._paused_at = now_ns

    def resume(self, now_ns: int) -> None:
        if self._paused_at is not None:
            self._pauses.append((self._paused_at, now_ns))
            self._paused_at = None

    def lap(self, now_ns: int) -> Lap:
        """The lap since the last one or since the start; begins the next lap."""
        self.resume(now_ns)
        lap = Lap(self._since, now_ns, tuple(self._pauses))
        self.start(now_ns)
        return lap


class Median:
    """The median of the values given so far, without the first `skip`; None while there are none."""

    def __init__(self, skip: int = WARMUP_STEPS) -> None:
        self._to_skip = skip
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        if self._to_skip:
            self._to_skip -= 1
        else:
            insort(self._sorted, value)

    @property
    def value(self) -> float | None:
        if not self._sorted:
            return None
        low, high = self._sorted[(len(self._sorted) - 1) // 2], self._sorted[len(self._sorted) // 2]
        return (low + high) / 2


def model_flops_utilization(
    config: ModelConfig, *, seq_len: int, tokens_per_second: float, ranks: int, peak: float
) -> float:
    """The FLOP/s that the model needs, without recomputation (PaLM, arXiv 2204.02311, appendix B), over the FLOP/s of
    `ranks` devices with a peak of `peak` FLOP/s."""
    return train_flops_per_token(config, seq_len) * tokens_per_second / (ranks * peak)
