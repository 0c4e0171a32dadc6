"""Stopping on a signal: the batch is finished, a checkpoint saved, and the run ends with status 0, interrupted.

A handler only makes a note: in the middle of a schedule a rank can neither save nor talk to the others. All ranks learn
of it together, from a flag in the step's all-reduce.
"""

import re
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.trainer.states import TrainerFn

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


def not_ignored(signals: Iterable[int]) -> list[int]:
    """The signals but for those that this process was told to ignore, as `nohup` does with SIGHUP."""
    return [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]


class StopRequest:
    """`signal` is the signal that this rank was sent; `agreed` says that all ranks will end after this batch."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.agreed = False

    def listen(self, signals: tuple[int, ...] = SIGNALS) -> None:
        for number in not_ignored(signals):
            signal.signal(number, self.note)

    def note(self, number: int, frame: Any) -> None:
        self.signal = number


def listen_while_fitting(trainer: L.Trainer, stop: StopRequest, environment: Any) -> None:
    """Registers handlers in place of Lightning's, which broadcast and save right where the signal finds a rank."""
    if trainer.state.fn != TrainerFn.FITTING:
        return  # nothing to save, and no step at whose end ranks agree: it ends at once
    stop.listen()
    if isinstance(environment, SLURMEnvironment) and environment.requeue_signal is not None:
        stop.listen((environment.requeue_signal,))


def requeue(
    environment: Any, number: int | None, environ: Mapping[str, str], call: Callable[[list[str]], int] = subprocess.call
) -> bool:
    """Asks SLURM to start the job again, where it is one that wants this and `number` is the signal that it warns by.
    For one process of the job. Returns whether SLURM agreed."""
    if not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue):
        return False
    if number != (environment.requeue_signal or signal.SIGUSR1):
        return False
    job = environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in environ:
        job = f"{environ['SLURM_ARRAY_JOB_ID']}_{environ['SLURM_ARRAY_TASK_ID']}"
    return re.fullmatch(r"[0-9_]+", job) is not None and call(["scontrol", "requeue", job]) == 0
