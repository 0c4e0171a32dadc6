"""How fast a run goes: the time of a step, tokens per second, and the fraction of the hardware's peak (MFU)."""

import time
from bisect import insort
from collections.abc import Callable

from project.model.config import ModelConfig
from project.model.cost import train_flops_per_token

# The first steps allocate, compile and connect; a run's typical step is none of them.
WARMUP_STEPS = 2


class StepClock:
    """Wall seconds from the end of one optimizer step to the end of the next, without what lies between `pause` and
    `resume` (validation)."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since = now()
        self._elapsed = 0.0
        self._paused = False

    def start(self) -> None:
        self._since, self._elapsed, self._paused = self._now(), 0.0, False

    def pause(self) -> None:
        if not self._paused:
            self._elapsed += self._now() - self._since
            self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._since, self._paused = self._now(), False

    def lap(self) -> float:
        """Seconds since the last lap, or since the start; begins the next."""
        self.pause()
        seconds = self._elapsed
        self.start()
        return seconds


class Median:
    """The median of the values given so far, the first `skip` left out; None while there is none."""

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
    """FLOPs that the model needs, recomputation not counted (PaLM, arXiv 2204.02311, appendix B), over what `ranks`
    devices of `peak` FLOP/s could have done."""
    return train_flops_per_token(config, seq_len) * tokens_per_second / (ranks * peak)
