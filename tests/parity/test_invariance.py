"""A layout changes how, never what: no degree and no number of microbatches moves a loss beyond rounding."""

from dataclasses import replace

import pytest

from project.spec.layout import ParallelLayout
from tests.harness.case import SMALL, Case
from tests.harness.training import train

ONE_RANK = Case(ParallelLayout(), replace(SMALL, z_coefficient=0.1), precision="64-true", steps=3)
CHANGES = {
    "2 microbatches": ParallelLayout(microbatches=2),
    "8 microbatches": ParallelLayout(microbatches=8),
    "tp": ParallelLayout(tp=4),
    "ep": ParallelLayout(tp=2, ep=2),
    "ep over dp": ParallelLayout(dp=4, ep=4),
    "etp": ParallelLayout(tp=2, etp=2),
    "pp": ParallelLayout(pp=4, microbatches=4),
    "virtual stages": ParallelLayout(pp=2, virtual_stages=2, schedule="Interleaved1F1B", microbatches=4),
    "dp": ParallelLayout(dp=4),
    "dp by shards": ParallelLayout(dp=4, dp_mode="shard"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_no_degree_and_no_number_of_microbatches_moves_a_loss(ranks, change: str) -> None:
    here, there = train(ranks, ONE_RANK), train(ranks, replace(ONE_RANK, layout=CHANGES[change]))
    assert there.losses == pytest.approx(here.losses, rel=1e-12)
    assert there.auxiliary_losses == pytest.approx(here.auxiliary_losses, rel=1e-12)
    assert there.grad_norms == pytest.approx(here.grad_norms, rel=1e-11)
