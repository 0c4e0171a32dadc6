"""Two runs on a GPU with `trainer.deterministic=true` have the same bits: `pytest -m gpu`. Without it, attention's
backward in half precision adds in whatever order its blocks end."""

import pytest
import torch

from project.spec.layout import ParallelLayout
from tests.gpu.test_parity import SharedGPU
from tests.harness.case import Case
from tests.harness.training import fit

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu


def losses(rank: int, world_size: int, case: Case) -> list[float]:
    try:
        return fit(rank, world_size, case, accelerator=SharedGPU(), deterministic=True).losses
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_two_deterministic_runs_have_the_same_bits(ranks, precision: str) -> None:
    case = Case(ParallelLayout(microbatches=2), precision=precision, steps=20)
    assert ranks.run(1, losses, case, backend="nccl") == ranks.run(1, losses, case, backend="nccl")
