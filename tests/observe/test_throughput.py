"""Step times, medians and MFU."""

import pytest

from project.observe.throughput import Median, StepClock, model_flops_utilization
from project.spec.cost import train_flops_per_token
from project.spec.model import ModelConfig

SECOND = 10**9


def test_a_step_s_time_leaves_out_what_was_paused():
    clock = StepClock()
    clock.start(100 * SECOND)
    assert clock.lap(102 * SECOND).seconds == 2.0
    clock.pause(103 * SECOND)
    clock.resume(153 * SECOND)
    lap = clock.lap(153 * SECOND + SECOND // 2)
    assert (lap.seconds, lap.pauses) == (1.5, ((103 * SECOND, 153 * SECOND),))


def test_resuming_a_clock_that_runs_changes_nothing():
    clock = StepClock()
    clock.start(0)
    clock.resume(SECOND)
    assert clock.lap(2 * SECOND).seconds == 2.0


@pytest.mark.parametrize(
    ("values", "median"),
    [([], None), ([9, 9], None), ([9, 9, 3.0], 3.0), ([9, 9, 4.0, 1.0], 2.5), ([9, 9, 5.0, 1.0, 3.0], 3.0)],
)
def test_the_median_step_time_skips_the_first_two_steps(values, median):
    running = Median()
    for value in values:
        running.add(value)
    assert running.value == median


def test_mfu_is_one_when_the_needed_flops_fill_the_peak():
    config = ModelConfig()
    peak = train_flops_per_token(config, 256) * 1000 / 16
    mfu = model_flops_utilization(config, seq_len=256, tokens_per_second=1000.0, ranks=16, peak=peak)
    assert mfu == pytest.approx(1.0)
