"""How near a step in half precision has to be to the fp64 oracle."""

import pytest

from tests.harness.outcome import Outcome

NEAR = {"bf16-mixed": 2e-2, "16-mixed": 5e-3}
"""Relative error of a loss and of the gradient's norm: some roundings of 2^-8 and of 2^-11."""


def check_near(actual: Outcome, wanted: Outcome, tolerance: float) -> None:
    """Asserts that the first step's loss and norm agree to `tolerance`, relative, and that the same weights have
    gradients. Single entries of a gradient may be all rounding."""
    assert actual.losses[0] == pytest.approx(wanted.losses[0], rel=tolerance)
    assert actual.grad_norms[0] == pytest.approx(wanted.grad_norms[0], rel=tolerance)
    assert actual.gradients.keys() == wanted.gradients.keys()
