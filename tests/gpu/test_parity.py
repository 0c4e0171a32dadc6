"""The parity matrix on a GPU: `pytest -m gpu`. All ranks of a case share the one device, over gloo by way of the host
(`tests/harness/staged_gloo.py`); one rank also runs over NCCL."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator

from project.spec.layout import RECOMPUTE, ParallelLayout
from tests.harness import staged_gloo
from tests.harness.case import SMALL, Case
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, Outcome, check_step, merged
from tests.harness.training import fit

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu

ONE_RANK = {
    "plain": Case(ParallelLayout(microbatches=4)),
    "stages that follow one another": Case(
        ParallelLayout(virtual_stages=2, schedule="InterleavedZeroBubble", microbatches=4)
    ),
    "sharded": Case(ParallelLayout(dp_mode="shard", microbatches=2)),
    "a capacity": Case(ParallelLayout(), replace(SMALL, capacity_factor=1.0, capacity_group=4)),
    "sigmoid scores, a shared expert, a dense layer": Case(
        ParallelLayout(), replace(SMALL, score="sigmoid", num_shared_experts=1, num_dense_layers=1)
    ),
    "an expert without a token": Case(ParallelLayout(), starved=1),
    **{f"recompute {mode}": Case(ParallelLayout(recompute=mode)) for mode in RECOMPUTE},  # type: ignore[arg-type]
}


class SharedGPU(CUDAAccelerator):
    """The trainer of a rank on the first GPU."""

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        return [0] * int(devices)

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        return [torch.device("cuda", index) for index in devices]


def fit_on_gpu(rank: int, world_size: int, case: Case) -> Outcome:
    torch.backends.cuda.matmul.allow_tf32 = False
    return fit(rank, world_size, case, accelerator=SharedGPU())


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", ONE_RANK)
def test_one_rank_over_nccl_agrees_with_the_oracle(ranks, name: str, precision: str) -> None:
    case = replace(ONE_RANK[name], precision=precision)
    check_step(*ranks.run(1, fit_on_gpu, case, backend="nccl"), expected(ranks, case), TOLERANCE[precision])


@pytest.mark.parametrize("precision", TOLERANCE)
def test_ranks_that_share_a_gpu_agree_with_the_oracle(ranks, case: Case, precision: str) -> None:
    case = replace(case, precision=precision)
    outcomes = ranks.run(case.layout.world_size, fit_on_gpu, case, backend=staged_gloo.NAME)
    check_step(merged(outcomes), expected(ranks, case), TOLERANCE[precision])
