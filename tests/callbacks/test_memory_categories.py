"""Weights, gradients and optimizer state of each rank, in bytes."""

from typing import Any

import pytest

from project.callbacks.first_steps import MemoryCategories
from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.training import run


def categories(rank: int, world_size: int, case: Case) -> tuple[int, list[dict[str, int]]]:
    here: Any = run(rank, world_size, case, MemoryCategories()).strategy
    return here.parameters_here(), here.record.summary["memory_by_category_per_rank"]


@pytest.mark.parametrize(
    "layout",
    [
        ParallelLayout(pp=2, tp=2, ep=2, microbatches=2),
        ParallelLayout(pp=2, dp=2, dp_mode="shard", microbatches=2),
    ],
    ids=str,
)
def test_fp32_weights_and_gradients_take_4_bytes_a_parameter_and_adam_s_state_8(ranks, layout: ParallelLayout) -> None:
    """With sharded replicas, only the part on this rank counts."""
    answers = ranks.run(4, categories, Case(layout, steps=2))
    for rank, (parameters, every_rank) in enumerate(answers):
        assert every_rank == answers[0][1]
        assert every_rank[rank]["gradients"] == 4 * parameters
        assert 4 * parameters <= every_rank[rank]["weights"] < 4 * parameters + 5000, "and buffers"
        tensors = every_rank[rank]["optimizer"] - 8 * parameters
        assert 0 <= tensors < 4 * 200, "and a step count for each parameter"
