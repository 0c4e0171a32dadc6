"""The corners of routing, each under layouts that send tokens in every way."""

from dataclasses import replace

import pytest

from project.spec.layout import ParallelLayout
from tests.harness.case import SMALL, Case
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step
from tests.harness.training import train

LAYOUTS = {
    "one rank": ParallelLayout(microbatches=2),
    "ep over tp": ParallelLayout(tp=4, ep=4, microbatches=2),
    "ep over dp": ParallelLayout(dp=2, tp=2, ep=4, microbatches=2),
    "sliced experts": ParallelLayout(dp=2, tp=2, ep=2, etp=2, microbatches=2),
    "sharded replicas": ParallelLayout(pp=2, dp=2, tp=2, ep=2, dp_mode="shard", microbatches=2),
    "zero bubble": ParallelLayout(pp=2, tp=2, ep=2, schedule="ZBVZeroBubble", virtual_stages=2, microbatches=2),
}
CORNERS = {
    "an expert without a token": Case(ParallelLayout(), starved=1),
    "all tokens to one expert": Case(ParallelLayout(), replace(SMALL, top_k=1), favoured=2),
    "all tokens to one expert of little room": Case(
        ParallelLayout(), replace(SMALL, top_k=1, capacity_factor=1.0, capacity_group=4), favoured=2
    ),
    "exact ties": Case(ParallelLayout(), tied=True),
    "all experts chosen": Case(ParallelLayout(), replace(SMALL, top_k=4)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("corner", CORNERS)
def test_routing_at_its_edges_agrees_with_the_oracle(ranks, corner: str, layout: str) -> None:
    case = replace(CORNERS[corner], layout=LAYOUTS[layout], precision="64-true")
    actual = train(ranks, case)
    check_step(actual, expected(ranks, case), TOLERANCE[case.precision])
    if case.starved is not None:
        assert not actual.gradients["layers.0.moe.experts.w1"][case.starved].any()
    if case.favoured is not None:
        assert [bool(expert.any()) for expert in actual.gradients["layers.0.moe.experts.w1"]] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    "layout",
    [
        ParallelLayout(tp=2, microbatches=2),
        ParallelLayout(dp=2, tp=2, etp=4, microbatches=2),
        ParallelLayout(dp=2, dp_mode="shard", microbatches=2),
    ],
    ids=str,
)
def test_a_model_with_one_expert_agrees_with_the_oracle(ranks, layout: ParallelLayout) -> None:
    case = Case(layout, replace(SMALL, num_experts=1, top_k=1))
    check_step(train(ranks, case), expected(ranks, case), 1e-5)
