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

from project.callbacks.checkpoint import Checkpoint
from project.engine.gradients import NotFinite
from project.spec.layout import ParallelLayout
from project.state.checkpoint.reader import Checkpoint as Checkpoints
from project.strategy.stop import StopRequest, requeue
from tests.harness.case import SMALL, Case
from tests.harness.saving import all_tensors, data, differing, run
from tests.harness.trainer import trainer
from tests.harness.training import CaseModule, Numbers

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
    checkpoint = Checkpoints(tmp_path / "last.ckpt")
    checkpoint.verify()
    assert checkpoint.meta["global_step"] == 3


def test_a_nan_gradient_stops_all_ranks_and_is_named(ranks, tmp_path: Path) -> None:
    for name, said, steps, _ in ranks.run(2, ended, tmp_path, spoil):
        assert (name, steps) == ("NotFinite", 2)
        assert said.startswith("step 3: loss 4.")
        assert "first not finite is the gradient of layers.1.attention.wo.weight (stage 1, rank 1)" in said
    checkpoint = Checkpoints(tmp_path / "last.ckpt")
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


# -- in validation ------------------------------------------------------------------------------------------------


class InValidation(L.Callback):
    """Calls a function on one rank in the second batch of the first validation; counts the batches of all, and keeps
    what they found."""

    def __init__(self, rank: int, action: Any, in_training: bool) -> None:
        self.rank, self.action, self.batches, self.found = rank, action, 0, list[float]()
        self.in_training = in_training

    def on_after_backward(self, trainer: L.Trainer, module: Any) -> None:
        if self.in_training and self.action and trainer.global_rank == self.rank and trainer.global_step == 1:
            self.action(module)

    def on_validation_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if not self.in_training and self.action and trainer.global_rank == self.rank and batch_idx == 1:
            self.action(module)

    def on_validation_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        self.found.append(trainer.callback_metrics["val/loss"].item())


def validated(
    rank: int, world_size: int, folder: Path, action: Any, resume: Path | None = None, in_training: bool = False
) -> tuple:
    """How it ended, batches validated, validation losses, training losses, and the tensors at the end."""
    watcher, numbers = InValidation(1, action, in_training), Numbers()
    saving = Checkpoint(dirpath=folder, filename="{step}", monitor="step", mode="max", save_top_k=2, save_last="link")
    engine = trainer(
        rank,
        world_size,
        CASE,
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        limit_val_batches=5,
        callbacks=[watcher, numbers, saving],
        enable_checkpointing=True,
    )
    try:
        engine.fit(CaseModule(CASE), data(CASE), ckpt_path=resume)
    except SIGTERMException:
        return "stopped", watcher.batches, watcher.found, numbers.outcome.losses, {}
    return "", watcher.batches, watcher.found, numbers.outcome.losses, all_tensors(engine)


@pytest.mark.parametrize("in_training", [False, True])
def test_a_stop_in_validation_or_before_it_is_answered_within_a_batch_and_nothing_is_lost(
    ranks: Any, tmp_path: Path, in_training: bool
) -> None:
    straight = ranks.run(2, validated, tmp_path / "straight", None)
    stopped = ranks.run(2, validated, tmp_path / "stopped", send(signal.SIGTERM), None, in_training)
    batches = 0 if in_training else 2
    assert [(how, done, found) for how, done, found, _, _ in stopped] == [("stopped", batches, [])] * 2
    last = tmp_path / "stopped" / "last.ckpt"
    Checkpoints(last).verify()
    assert Checkpoints(last).meta["global_step"] == 2
    resumed = ranks.run(2, validated, tmp_path / "stopped", None, last)
    for before, first, then in zip(straight, stopped, resumed, strict=True):
        assert first[3] + then[3] == before[3]  # training losses
        assert then[2] == before[2]  # of both validations: the one that was stopped is made anew, whole
        assert differing(then[4], before[4]) == []


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
