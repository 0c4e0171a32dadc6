"""Rates are measured as asked for; the clocks are simulated."""

import pytest
import torch

from project.calibration import rates


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 0.0

        def pass_by(self, seconds: float) -> None:
            self.now += seconds

    made = Clock()
    monkeypatch.setattr(rates.time, "process_time", lambda: made.now)
    return made


@pytest.mark.parametrize("once", [1e-6, 1e-3, 1.0])
def test_a_call_s_measured_seconds_are_those_that_it_moves_the_clock(clock, once):
    assert rates.seconds(lambda: clock.pass_by(once)) == pytest.approx(once)


def test_one_slow_repetition_does_not_change_a_measured_rate(clock):
    laps = iter([1.0] * 3 + [50.0] + [1.0] * 10)
    assert rates.seconds(lambda: clock.pass_by(next(laps))) == pytest.approx(1.0)


def test_launch_time_is_measured_with_one_tiny_operator(monkeypatch):
    timed = []
    monkeypatch.setattr(rates, "seconds", lambda call, device: timed.append((call(), device)) or 2e-6)
    assert rates.launch_seconds(torch.device("cpu")) == 2e-6
    [(out, device)] = timed
    assert (out.numel(), device.type) == (1, "cpu")


def test_measured_matrix_products_have_the_sizes_and_the_dtype_that_were_asked_for(monkeypatch):
    made = []
    monkeypatch.setattr(rates, "seconds", lambda call, device: made.append(call()) or 0.5)
    sizes = [(4, 8, 2), (16, 2, 4)]
    assert rates.gemm_rates(sizes, dtype=torch.bfloat16) == {size: 4 * size[0] * size[1] * size[2] for size in sizes}
    assert [(out.shape, out.dtype) for out in made] == [((4, 2), torch.bfloat16), ((16, 4), torch.bfloat16)]
