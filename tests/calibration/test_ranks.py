"""Forked processes return their results, and the exception of one that fails."""

import os
import socket

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


def test_a_rank_that_ends_without_an_answer_is_named() -> None:
    def ends(rank: int) -> None:
        if rank == 1:
            os._exit(3)

    with pytest.raises(RuntimeError, match=r"rank 1 of the measurement ended with status 3|onnection"):
        on_ranks(2, ends)


def test_a_port_that_is_taken_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("project.calibration.ranks._free_port", lambda: taken.getsockname()[1])
        with pytest.raises(Exception, match=r"EADDRINUSE|in use"):
            on_ranks(1, lambda rank: rank)
