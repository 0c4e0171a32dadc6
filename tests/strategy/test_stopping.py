"""Runs that are stopped: all ranks end after the same batch, with a whole checkpoint."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from project.engine.gradients import NotFinite
from project.spec.layout import ParallelLayout
from project.state.checkpoint.reader import Checkpoint
from project.strategy.stop import StopRequest, requeue
from tests.harness.case import SMALL, Case
from tests.harness.saving import run

CASE = Case(ParallelLayout(pp=2, microbatches=2), replace(SMALL, num_layers=2), steps=5)


class AtStep(L.Callback):
    """Calls a function on one rank in the third step, after its backward."""

    def __init__(self, rank: int, action: Any, not_finite: str = "stop") -> None:
        self.rank, self.action, self.not_finite, self.steps = rank, action, not_finite, 0

    def on_fit_start(self, trainer: L.Trainer, module: Any) -> None:
        trainer.strategy.step.not_finite = self.not_finite

    def on_after_backward(self, trainer: L.Trainer, module: Any) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 2:
            self.action(module)

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        self.steps = trainer.global_step


class InfiniteLoss(L.Callback):
    """Makes the loss infinite in the third step without changing a gradient."""

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, *rest: Any) -> None:
        if trainer.global_step == 2:
            module.loss = lambda outputs, targets: type(module).loss(module, outputs, targets) + math.inf
        elif trainer.global_step > 2:
            del module.loss


def ended(
    rank: int,
    world_size: int,
    folder: Path,
    action: Any,
    not_finite: str = "stop",
    case: Case = CASE,
    more: tuple[L.Callback, ...] = (),
) -> tuple:
    watcher = AtStep(1, action, not_finite)
    try:
        ending = run(rank, world_size, case, folder, callbacks=(watcher, *more), every_n_train_steps=2)
    except (SIGTERMException, NotFinite) as error:
        return type(error).__name__, str(error), watcher.steps, []
    return "", "", watcher.steps, ending.losses


def send(number: int) -> Any:
    return Sender(number)


class Sender:
    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, module: Any) -> None:
        os.kill(os.getpid(), self.number)


def spoil(module: Any) -> None:
    weights = dict(module.named_weights())
    weights["layers.1.attention.wo.weight"].grad.to_local()[3, 5] = math.nan


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_to_one_rank_ends_all_after_the_batch_with_a_checkpoint(ranks, tmp_path: Path, number: int) -> None:
    answers = ranks.run(2, ended, tmp_path, send(number))
    assert [(name, steps) for name, _, steps, _ in answers] == [("SIGTERMException", 3)] * 2
    checkpoint = Checkpoint(tmp_path / "last.ckpt")
    checkpoint.verify()
    assert checkpoint.meta["global_step"] == 3


def test_a_nan_gradient_stops_all_ranks_and_is_named(ranks, tmp_path: Path) -> None:
    for name, said, steps, _ in ranks.run(2, ended, tmp_path, spoil):
        assert (name, steps) == ("NotFinite", 2)
        assert said.startswith("step 3: loss 4.")
        assert "first not finite is the gradient of layers.1.attention.wo.weight (stage 1, rank 1)" in said
    checkpoint = Checkpoint(tmp_path / "last.ckpt")
    checkpoint.verify()
    assert checkpoint.meta["global_step"] == 2


def nothing(module: Any) -> None:
    """Of the module."""


def test_an_infinite_loss_with_finite_gradients_stops_all_ranks(ranks, tmp_path: Path) -> None:
    for name, said, steps, _ in ranks.run(2, ended, tmp_path, nothing, "stop", CASE, (InfiniteLoss(),)):
        assert (name, steps) == ("NotFinite", 2)
        assert said.startswith("step 3: loss inf, gradient norm ")
        assert "first not finite is the loss itself, on the last stage" in said


def test_the_loss_reported_for_a_nan_gradient_is_the_mean_over_the_step_s_batches(ranks, tmp_path: Path) -> None:
    accumulating = replace(CASE, accumulate=3)
    for _, said, _, _ in ranks.run(2, ended, tmp_path, spoil, "stop", accumulating):
        assert said.startswith("step 3: loss 4.")


@pytest.mark.filterwarnings("ignore:step 3")
def test_a_step_with_a_nan_gradient_is_skipped_where_asked_for(ranks, tmp_path: Path) -> None:
    for name, _, steps, losses in ranks.run(2, ended, tmp_path, spoil, "skip"):
        assert (name, steps) == ("", 5)
        assert all(map(math.isfinite, losses))


def slurm(**options: Any) -> SLURMEnvironment:
    return SLURMEnvironment(**options)


def test_slurm_requeues_the_job_on_its_own_warning_alone() -> None:
    """Checks the command that SLURM would be given."""
    asked: list[list[str]] = []

    def call(command: list[str]) -> int:
        asked.append(command)
        return 0

    assert requeue(slurm(), signal.SIGUSR1, {"SLURM_JOB_ID": "41"}, call)
    assert requeue(slurm(requeue_signal=signal.SIGUSR2), signal.SIGUSR2, {"SLURM_JOB_ID": "42"}, call)
    array = {"SLURM_JOB_ID": "43", "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}
    assert requeue(slurm(), signal.SIGUSR1, array, call)
    assert asked == [["scontrol", "requeue", job] for job in ("41", "42", "40_3")]
    assert not requeue(slurm(), signal.SIGTERM, {"SLURM_JOB_ID": "41"}, call)  # it is to end
    assert not requeue(slurm(auto_requeue=False), signal.SIGUSR1, {"SLURM_JOB_ID": "41"}, call)
    assert not requeue(LightningEnvironment(), signal.SIGUSR1, {"SLURM_JOB_ID": "41"}, call)
    assert not requeue(slurm(), signal.SIGUSR1, {"SLURM_JOB_ID": "41; rm -rf /"}, call)
    assert len(asked) == 3


def test_a_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        StopRequest().listen()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
