"""A fit with validation gives no collective and no synchronised log a tensor that was made on the host."""

from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.distributed as dist

from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.step_metrics import StepMetrics
from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.ranks import RankError, RankPools
from tests.harness.training import run
from tests.harness.two_devices import HostTensorError, two_devices

LAYOUT = ParallelLayout(pp=2, dp=2, tp=2, ep=2, microbatches=2)


def fit(rank: int, world_size: int, case: Case) -> None:
    with two_devices():
        run(rank, world_size, case, StepMetrics(), ExpertMetrics(), validate=True)


def test_no_tensor_of_the_host_s_is_sent_or_logged_with_a_sync(ranks: RankPools) -> None:
    ranks.run(LAYOUT.world_size, fit, Case(LAYOUT, steps=2, clip=1.0, masked=True))


class FromTheHost(L.Callback):
    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        module.log("step", torch.tensor(float(trainer.global_step)).double(), sync_dist=True)


def fit_with(rank: int, world_size: int, callback: L.Callback) -> None:
    with two_devices():
        run(rank, world_size, Case(ParallelLayout()), callback, validate=True)


def test_a_log_of_the_host_s_is_found(ranks: RankPools) -> None:
    with pytest.raises(RankError, match=r"self.log\('step', sync_dist=True\) is given a tensor of the host's"):
        ranks.run(1, fit_with, FromTheHost())


def send_from_the_host(rank: int, world_size: int) -> list[str]:
    said = []
    with two_devices():
        made: list[Any] = [torch.ones(2), torch.ones(2, device="cpu"), torch.ones(2, device="cpu").cpu() + 1]
        for tensor in made:
            try:
                dist.all_reduce(tensor)
                said.append("sent")
            except HostTensorError as error:
                said.append(str(error))
    return said


def test_a_collective_of_the_host_s_is_found(ranks: RankPools) -> None:
    found = "dist.all_reduce is given a tensor of the host's"
    assert ranks.run(1, send_from_the_host) == [[found, "sent", found]]
