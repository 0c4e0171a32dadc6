"""The step as a plain loop of torch: no Lightning runs it, and it does bit for bit what `trainer.fit` does."""

import subprocess
import sys
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from project.engine.gradients import clip_to_norm
from project.engine.mesh import build_mesh
from project.engine.parts import build_parts, named_weights
from project.engine.precision import ComputePrecision
from project.engine.step import Step
from project.model.transformer import Balancing
from project.spec.layout import ParallelLayout
from project.training.optimizer import OptimizerConfig, build_optimizer
from project.training.split_transformer import SplitTransformer
from tests.harness.case import LEARNING_RATE, Case
from tests.harness.oracle import chunked
from tests.harness.outcome import Outcome, merged
from tests.harness.training import loader, train

CASES = {
    "tp4_ep4_pp4": Case(ParallelLayout(pp=4, tp=4, ep=4, microbatches=4), steps=3, clip=0.5),
    "sharded replicas, fp16, two batches a step": Case(
        ParallelLayout(pp=2, dp=2, dp_mode="shard", microbatches=2), precision="16-mixed", steps=3, accumulate=2
    ),
}
TIMEOUT = timedelta(minutes=5)  # the strategy's: meshes of one shape are shared


def plain_loop(rank: int, world_size: int, case: Case) -> Outcome:
    """Trains as a script would: model, mesh, parts, optimizer, step."""
    device, layout, precision = torch.device("cpu"), case.layout, ComputePrecision(case.precision)
    model, mesh = SplitTransformer(case.model, seq_len=case.seq_len), build_mesh(layout, device.type, TIMEOUT)
    parts = build_parts(model, layout, mesh, device, precision.weight_dtype)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE), named_weights(parts))
    step = Step(model, parts, layout, mesh, device, precision, precision.loss_scale())
    step.accumulate = case.accumulate
    outcome = Outcome()

    def clip() -> None:
        if case.clip is not None:
            clip_to_norm(step.gradients(), step.grad_norm, case.clip)

    for window in chunked(list(loader(case, rank)), case.accumulate):
        losses = []
        for number, batch in enumerate(window, 1):
            balancing = Balancing(penalty_scale=step.penalty_scale(batch["targets"]))
            statistics = partial(model.tabulate, balancing, layout, device)
            last = number == len(window)
            sums = step.train_batch(batch["tokens"], batch["targets"], statistics, last=last, balancing=balancing)
            losses.append(sums.loss)
            outcome.losses.append(torch.stack(losses).mean().item())  # as it is logged: of the step so far
        step.update(optimizer, clip)
        outcome.grad_norms.append(step.grad_norm)
    for name, weight in named_weights(parts):
        outcome.final[name] = (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().clone()
    return outcome


@pytest.mark.parametrize("name", CASES)
def test_three_steps_of_a_plain_loop_are_those_of_trainer_fit_bit_for_bit(ranks: Any, name: str) -> None:
    case = CASES[name]
    fitted = train(ranks, case, initial=True)
    looped = merged(ranks.run(case.layout.world_size, plain_loop, case))
    assert looped.losses == fitted.losses
    assert looped.grad_norms == fitted.grad_norms
    assert looped.final.keys() == fitted.final.keys()
    assert [name for name in fitted.final if not torch.equal(looped.final[name], fitted.final[name])] == []
    assert any(not torch.equal(fitted.final[name], fitted.initial[name]) for name in fitted.final), "something moved"


def test_neither_step_nor_model_imports_lightning() -> None:
    imports = "import sys, project.engine.step, project.training.split_transformer, project.training.optimizer"
    check = f"{imports}; print(sorted({{name.split('.')[0] for name in sys.modules}} & {{'lightning', 'hydra'}}))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def a_batch_too_many(rank: int, world_size: int, case: Case) -> str:
    device = torch.device("cpu")
    model, mesh = SplitTransformer(case.model, seq_len=case.seq_len), build_mesh(case.layout, device.type, TIMEOUT)
    step = Step(model, build_parts(model, case.layout, mesh, device, torch.float32), case.layout, mesh, device)
    batch = next(iter(loader(case, rank)))
    step.train_batch(batch["tokens"], batch["targets"], balancing=Balancing())
    with pytest.raises(RuntimeError, match="whose gradients are summed already") as refused:
        step.train_batch(batch["tokens"], batch["targets"], balancing=Balancing())
    return str(refused.value)


def test_a_batch_after_the_last_one_of_a_step_is_refused(ranks: Any) -> None:
    assert ranks.run(1, a_batch_too_many, Case(ParallelLayout()))
