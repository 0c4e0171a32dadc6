"""Forked processes return their results, and the exception of one that fails."""

import pytest

from project.calibration.ranks import on_ranks


def test_every_calibration_rank_s_answer_is_returned():
    assert on_ranks(2, lambda rank: 10 * rank) == [0, 10]


def test_an_error_on_a_calibration_rank_is_raised():
    def measure(rank: int) -> int:
        if rank == 0:
            raise ValueError("no such device")
        return rank

    with pytest.raises(ValueError, match="no such device"):
        on_ranks(2, measure)
