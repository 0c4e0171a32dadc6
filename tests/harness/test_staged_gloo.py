"""The backend of ranks that share a GPU, tested on a CPU, where it is gloo with one copy more."""

import pytest

from project.spec.layout import ParallelLayout
from tests.harness import staged_gloo
from tests.harness.case import Case
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step, merged
from tests.harness.training import fit

LAYOUTS = {
    "every axis": ParallelLayout(pp=2, tp=2, ep=2, microbatches=4),
    "shards, experts over dp and tp": ParallelLayout(dp=2, tp=2, ep=4, dp_mode="shard", microbatches=2),
    "slices of experts, both ways at once": ParallelLayout(
        pp=2, tp=2, etp=2, schedule="DualPipeV", virtual_stages=2, microbatches=4
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_training_over_staged_gloo_agrees_with_the_oracle(ranks, name: str) -> None:
    case = Case(LAYOUTS[name])
    outcomes = ranks.run(case.layout.world_size, fit, case, backend=staged_gloo.NAME)
    check_step(merged(outcomes), expected(ranks, case), TOLERANCE["32-true"])
