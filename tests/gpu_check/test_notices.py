"""`make gpu-check` notices what it is there for: each mending of `undone` taken back, or fault put in, fails it."""

import pytest

from tests.gpu_check import budget
from tests.gpu_check.cases import SIZE
from tests.gpu_check.runs import Runs

TWO_RANKS = [*SIZE, "parallel.tp=2", "parallel.ep=2", "parallel.microbatches=2"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_tensor_of_the_host_s_in_a_collective(runs: Runs, ranks: int) -> None:
    """The first validation of any CUDA run crashed, on one rank too."""
    outcome = runs.train(TWO_RANKS if ranks == 2 else [*SIZE, "parallel.microbatches=2"], undo="log_from_the_host")
    assert outcome.status == 1
    assert "No backend type associated with device type cpu" in outcome.output


def test_a_collective_without_work(runs: Runs) -> None:
    """The first step of two ranks of NCCL's crashed."""
    outcome = runs.train(TWO_RANKS, undo="ask_no_work")
    assert outcome.status == 1
    assert "'NoneType' object has no attribute 'get_future'" in outcome.output


@pytest.mark.parametrize(
    ("fault", "event"),
    [
        ("read_each_loss", "wait in tests/gpu_check/undone.py:read_each_loss.reading"),
        ("weigh_on_the_host", "copy in tests/gpu_check/undone.py:weigh_on_the_host.weighing"),
    ],
)
def test_a_wait_and_a_copy_that_nobody_asked_for(runs: Runs, fault: str, event: str) -> None:
    outcome = runs.train(TWO_RANKS, undo=fault)
    assert outcome.status == 0, outcome.output
    faults = [line for line in budget.beyond(outcome.seen, budget.read()) if line.startswith(event)]
    assert len(faults) == 1
