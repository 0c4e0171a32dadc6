"""Half precision near the fp64 oracle on a GPU, and an expert and a rank without rows: `pytest -m gpu`."""

from dataclasses import replace

import pytest
import torch

from project.spec.layout import ParallelLayout
from tests.gpu.test_parity import fit_on_gpu
from tests.harness import staged_gloo
from tests.harness.case import SMALL, Case
from tests.harness.half_precision import NEAR, check_near
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step, merged

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu

WITHOUT_ROWS = Case(ParallelLayout(tp=4, ep=4, microbatches=2), replace(SMALL, num_experts=4), starved=1)
"""Rank 1 has expert 1 alone, which no token may choose."""


@pytest.mark.parametrize("precision", NEAR)
@pytest.mark.parametrize("starved", [None, 1])
def test_one_rank_in_half_precision_is_near_the_oracle(ranks, precision: str, starved: int | None) -> None:
    case = Case(ParallelLayout(microbatches=2), precision=precision, starved=starved)
    check_near(*ranks.run(1, fit_on_gpu, case, backend="nccl"), expected(ranks, case), NEAR[precision])


@pytest.mark.parametrize("precision", [*TOLERANCE, *NEAR])
def test_a_rank_without_rows(ranks, precision: str) -> None:
    case = replace(WITHOUT_ROWS, precision=precision)
    outcome = merged(ranks.run(4, fit_on_gpu, case, backend=staged_gloo.NAME))
    if precision in NEAR:
        check_near(outcome, expected(ranks, case), NEAR[precision])
    else:
        check_step(outcome, expected(ranks, case), TOLERANCE[precision])
