"""Half precision is near the fp64 oracle, also where an expert or a rank has no rows. On a GPU: `tests/gpu`."""

from dataclasses import replace

import pytest

from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.half_precision import NEAR, check_near
from tests.harness.oracle import expected
from tests.harness.ranks import RankPools
from tests.harness.training import train


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("starved", [None, 1])
@pytest.mark.parametrize(
    "layout", [ParallelLayout(microbatches=2), ParallelLayout(tp=4, ep=4, microbatches=2)], ids=str
)
def test_half_precision_is_near_the_oracle(
    ranks: RankPools, layout: ParallelLayout, starved: int | None, precision: str
) -> None:
    case = Case(layout, precision=precision, starved=starved)
    check_near(train(ranks, case), expected(ranks, replace(case, precision="64-true")), NEAR[precision])
