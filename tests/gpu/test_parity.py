"""One rank on a GPU, over NCCL, computes what one rank computes on the CPU in fp64: `pytest -m gpu`.

More ranks want more GPUs: gloo, over which several could share one, neither sends from nor exchanges GPU memory.
"""

import multiprocessing as mp
import os
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from project.parallel.layout import RECOMPUTE, ParallelLayout
from tests.parity.test_layouts import TOLERANCE, check_step
from tests.parity.training import SMALL, Case, CaseModule, Observer, Outcome, expected, loader, trainer
from tests.ranks import free_port

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CASES = {
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


def fit_on_gpu(case: Case, pipe: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    torch.backends.cuda.matmul.allow_tf32 = False
    dist.init_process_group("nccl", rank=0, world_size=1)
    observer = Observer()
    engine = trainer(0, 1, case, accelerator="cuda", max_steps=case.steps, callbacks=[observer])
    engine.fit(CaseModule(case), loader(case, 0))
    outcome = observer.outcome
    outcome.gradients = {name: gradient.cpu() for name, gradient in outcome.gradients.items()}
    outcome.initial, outcome.final, outcome.biases = {}, {}, {}
    pipe.send(outcome)
    dist.destroy_process_group()


def on_gpu(case: Case) -> Outcome:
    """In a process of its own: ranks elsewhere are forked, and a CUDA context does not survive that."""
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=fit_on_gpu, args=(case, theirs))
    process.start()
    theirs.close()
    outcome = ours.recv()
    process.join()
    return outcome


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_loss_and_every_gradient_are_the_oracle_s(ranks, name: str, precision: str) -> None:
    case = replace(CASES[name], precision=precision)
    check_step(on_gpu(case), expected(ranks, case), TOLERANCE[precision])
