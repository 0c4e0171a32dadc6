"""Agreement of the ranks around a checkpoint: whether any of them raised a flag, the first error of all, and when every
rank's own disk is done. Everything here is collective."""

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from project.state.checkpoint.manifest import CheckpointError

PATIENCE_S = 0.5
"""Seconds that a rank waits for its own disk before it tells the others, far below any process group's timeout."""
SLOW_S = 60.0
"""Seconds after which a rank says that its disk is slow."""

Result = TypeVar("Result")


def any_rank(*flags: bool) -> list[bool]:
    """Returns for each flag whether any rank raised it."""
    raised = torch.tensor(list(map(float, flags)), device=group_device())
    dist.all_reduce(raised)
    return [count > 0 for count in raised.tolist()]


def raise_everywhere(error: CheckpointError | None) -> None:
    """Raises the lowest rank's error on all ranks, if any rank has one."""
    all_done(lambda seconds: True, "", lambda: error)


def all_done(
    wait: Callable[[float], bool], what: str, error: Callable[[], CheckpointError | None] = lambda: None
) -> None:
    """Returns when every rank is done with work of its own, and raises the lowest rank's `error()` on all ranks, if any
    has one then.

    `wait(seconds)` waits at most that long for this rank's work and returns whether it is done. However long that
    takes, no rank leaves the others alone in a collective for longer than `PATIENCE_S`, so that one slow disk does not
    run the collective's timeout out."""
    began, told = time.monotonic(), False
    while True:
        done = wait(PATIENCE_S)
        here = error() if done else None
        if not done and not told and time.monotonic() - began > SLOW_S:
            told = True
            warnings.warn(f"rank {dist.get_rank()}: {what} takes longer than {SLOW_S:g} s; all wait", stacklevel=2)
        somebody_works, failed = any_rank(not done, here is not None)
        if not somebody_works:
            break
    if failed:
        errors: list[CheckpointError | None] = [None] * dist.get_world_size()
        dist.all_gather_object(errors, here)
        raise next(error for error in errors if error is not None)


def each_for_itself(work: Callable[[], Result], what: str) -> Result:
    """Runs `work`, which uses no process group, in a thread, and returns its result when every rank is done with its
    own. Raises a rank's CheckpointError on all ranks, and any other error on this rank alone."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # raised below, in the thread that asked
            errors.append(error)

    def told() -> CheckpointError | None:
        return next((error for error in errors if isinstance(error, CheckpointError)), None)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    all_done(ended(thread), what, told)
    if errors:
        raise errors[0]
    return results[0]


def nothing() -> None:
    """Is the work of a rank that has none."""


def ended(thread: Any) -> Callable[[float], bool]:
    def wait(seconds: float) -> bool:
        thread.join(seconds)
        return not thread.is_alive()

    return wait


def group_device() -> torch.device:
    nccl = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
