"""Instants between which the spans of a step lie, in nanoseconds of this machine's clock.

A CPU has done its work when a call returns. A GPU's work is enqueued then, and done later: an instant of it is an event
in its stream, whose time is read when the step is over. Events cost the host some microseconds each and reading them
waits for the device, so that there are none unless somebody records.
"""

import time
from collections.abc import Sequence
from typing import Any, TypeVar

import torch

Instant = Any
"""Nanoseconds, or a CUDA event that will have them."""
Timed = TypeVar("Timed", bound=Any)
"""A named tuple with a start and an end."""


class Instants:
    """Instants of `device`, by default a CPU. `recording` says whether spans are to be kept at all; a CPU's always are.
    `cuda` is the driver."""

    def __init__(self, device: torch.device | None = None, cuda: Any = torch.cuda) -> None:
        self.on_gpu = device is not None and device.type == "cuda"
        self.device, self.cuda, self.recording = device, cuda, not self.on_gpu

    def record(self, recording: bool) -> None:
        self.recording = recording or not self.on_gpu

    def now(self) -> Instant:
        if not self.on_gpu:
            return time.time_ns()
        event = self.cuda.Event(enable_timing=True)
        event.record()  # in the stream that computes, which waits for the collectives that it needs
        return event

    def done(self) -> None:
        """Waits until the device has done all that was enqueued, where its time is recorded."""
        if self.on_gpu and self.recording:
            self.cuda.synchronize(self.device)

    def read(self, timed: Sequence[Timed]) -> list[Timed]:
        """Returns the spans with nanoseconds for instants. On a GPU it waits for the device."""
        if not self.on_gpu or not timed:
            return list(timed)
        last = self.now()
        self.cuda.synchronize(self.device)
        now_ns = time.time_ns()

        def nanoseconds(instant: Instant) -> int:
            return instant if isinstance(instant, int) else now_ns - round(instant.elapsed_time(last) * 1e6)

        return [one._replace(start_ns=nanoseconds(one.start_ns), end_ns=nanoseconds(one.end_ns)) for one in timed]
