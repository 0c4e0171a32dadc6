"""Spans on a GPU last as long as its work, not as long as the calls that enqueue it; nothing is recorded in between."""

import json
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from project.callbacks.first_steps import Communication
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.trace import Trace
from project.engine.instants import Instants
from project.engine.stage import Phase, Phases
from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.training import run

GPU = torch.device("cuda", 0)


class Driver:
    """A GPU's stream: `enqueue` gives it work that takes so many milliseconds. The host's time stands still."""

    def __init__(self) -> None:
        self.busy_until_ms, self.events, self.waits = 0.0, 0, 0
        self.Event = partial(Event, self)

    def enqueue(self, milliseconds: float) -> None:
        self.busy_until_ms += milliseconds

    def synchronize(self, device: torch.device) -> None:
        self.waits += 1


class Event:
    def __init__(self, driver: Driver, enable_timing: bool) -> None:
        assert enable_timing
        self.driver, self.at_ms = driver, float("nan")
        driver.events += 1

    def record(self) -> None:
        self.at_ms = self.driver.busy_until_ms

    def elapsed_time(self, later: "Event") -> float:
        return later.at_ms - self.at_ms


def recorded(driver: Driver) -> list[Phase]:
    instants = Instants(GPU, driver)
    instants.record(True)
    phases = Phases(instants)
    with phases.during("long"):
        driver.enqueue(2000.0)
    driver.enqueue(500.0)
    with phases.during("short"):
        driver.enqueue(0.25)
    return phases.take()


def test_a_span_on_a_gpu_lasts_as_long_as_its_work() -> None:
    long, short = recorded(Driver())
    assert (long.name, long.end_ns - long.start_ns) == ("long", 2_000_000_000)
    assert (short.name, short.end_ns - short.start_ns) == ("short", 250_000)
    assert short.start_ns - long.end_ns == 500_000_000


def test_the_device_is_waited_for_once_however_many_spans_are_read() -> None:
    driver = Driver()
    recorded(driver)
    assert driver.waits == 1


def test_a_gpu_that_nobody_records_has_no_event_and_no_wait() -> None:
    driver = Driver()
    instants = Instants(GPU, driver)
    phases = Phases(instants)
    with phases.during("something"):
        pass
    instants.done()
    assert phases.take() == []
    assert (driver.events, driver.waits) == (0, 0)


def test_a_cpu_records_always_and_waits_for_nothing() -> None:
    instants = Instants(torch.device("cpu"), cuda=None)
    instants.record(False)
    instants.done()
    phases = Phases(instants)
    with phases.during("something"):
        pass
    (phase,) = phases.take()
    assert 0 < phase.start_ns <= phase.end_ns


class EventsByStep(StepMetrics):
    """Counts events, and waits for the device, up to each step's end."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver, self.counted = driver, [(0, 0)]

    def on_train_batch_start(self, *args: Any) -> None:
        self.counted.append((self.driver.events, self.driver.waits))
        super().on_train_batch_start(*args)


def traced(rank: int, world_size: int, folder: str) -> list[tuple[int, int]]:
    driver = Driver()
    counter = EventsByStep(driver)
    with mock.patch("project.engine.step.Instants", return_value=Instants(GPU, driver)):
        callbacks = (Communication(), counter, Trace(folder, first=1, last=2))
        run(rank, world_size, Case(ParallelLayout(pp=2, microbatches=2), steps=6), *callbacks)
    return [*counter.counted, (driver.events, driver.waits)]


def test_a_run_on_gpus_records_the_steps_of_its_trace_and_no_others(ranks, tmp_path: Path) -> None:
    for counted in ranks.run(2, traced, str(tmp_path)):
        before, *steps = counted[1:]
        assert before == (0, 0)
        changed = [one != other for one, other in zip(counted[1:], steps, strict=False)]
        assert changed == [True, False, False, False, True, True]
    assert sorted(json.loads((tmp_path / "trace.json").read_text())["metadata"]["steps"]) == ["1", "5", "6"]


@pytest.mark.gpu
def test_spans_of_a_real_gpu_add_up_to_the_time_that_its_work_takes() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    instants = Instants(GPU)
    instants.record(True)
    phases = Phases(instants)
    square = torch.randn(8192, 8192, device=GPU)
    square @ square  # the first product loads the library
    instants.done()
    with phases.during("products"):
        for _ in range(10):
            square @ square
    (phase,) = phases.take()
    seconds = (phase.end_ns - phase.start_ns) / 1e9
    assert 10 * 2 * 8192**3 / seconds < 2e15, "faster than any card: only the launches were timed"
