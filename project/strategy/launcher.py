"""Ranks as forked processes: the imports are paid for once, and sixteen are up in a second.

Forking works with GPUs as long as no CUDA context exists before (Lightning checks). Under torchrun and SLURM the
processes are there already, and the strategy has no launcher.
"""

import contextlib
import ctypes
import math
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import lightning.pytorch as L
import torch.multiprocessing as mp
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from project.compat.lightning_internals import ForkingLauncher
from project.spec.fault import Told
from project.strategy.last_action import TIMED_OUT, LastActions, aborted_by_watchdog, waited_in_vain
from project.strategy.ranks import loopback
from project.strategy.stop import SIGNALS, StopRequest, not_ignored

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
STOPPED = "stopped"
AFTER_CTRL_C_S = 2.0
"""Seconds that the first Ctrl-C leaves the ranks to finish a batch and save; a second one ends them at once."""
GRACE_S = 1.0
"""Seconds that the other ranks have after one's death: the one seen first may not be the one that failed first."""
WATCHDOG_GRACE_S = 5.0
"""The same where NCCL's watchdog aborted one: those of the other ranks look about once a second."""


class RankFailed(RuntimeError):
    """A rank failed. `details` is its traceback, empty where a signal ended it."""

    def __init__(self, rank: int, message: str, details: str = "") -> None:
        super().__init__(f"rank {rank} failed: {message}")
        self.rank, self.details = rank, details


LIMIT = "; `ulimit -n` and `ulimit -u` say how many files and processes there may be"


class NotForked(Told, OSError):
    """Ranks that the system has no room for."""


def allow_open_files() -> None:
    """Raises this process's limit of open files to what it may be: sixteen ranks have hundreds of connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS says unlimited and allows less
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class ForkLauncher(ForkingLauncher):
    """Forks a process for each rank. `stop` notes the signals that a rank is sent while it fits."""

    def __init__(self, strategy: ModelParallelStrategy, stop: StopRequest) -> None:
        super().__init__(strategy)
        self.strategy, self.num_processes, self.stop = strategy, strategy.num_processes, stop
        self.has_fit = self.fits = False
        self.ranks: list[BaseProcess] = []
        self.passed_on: int | None = None  # the last signal that was sent on to the ranks
        self.last_actions = LastActions(self.num_processes)

    def launch(self, function: Callable, *args: Any, trainer: L.Trainer | None = None, **kwargs: Any) -> Any:
        """Runs `function` on every rank and returns what rank 0 returned.

        Raises:
            RankFailed: with the error of the rank that failed first; the others are dead by then.
            RuntimeError: for a second call after a fit: the weights stayed with its ranks, and those are gone.
            SIGTERMException: when the ranks were told to stop, and did so after their batch.
            KeyboardInterrupt: at a second Ctrl-C, or a while after the first, which tells the ranks to stop.
        """
        if trainer is not None and self.has_fit:
            raise RuntimeError(
                "This trainer has fitted already, and the weights went with its forked ranks: another call would begin "
                "with untrained ones. Validate within the fit (val_check_interval), or run under torchrun."
            )
        self.fits = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        self.check_cuda_is_untouched()
        assert self.strategy.cluster_environment is not None
        if os.environ.setdefault("MASTER_ADDR", loopback()) == "::1":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # it would look for IPv4's
        os.environ["MASTER_PORT"] = str(self.strategy.cluster_environment.main_port)
        context = mp.get_context("fork")
        allow_open_files()
        try:
            result, result_of_rank_zero = context.Pipe(duplex=False)
            errors, error_of = zip(*(context.Pipe(duplex=False) for _ in range(self.num_processes)), strict=True)
        except OSError as error:
            raise NotForked(f"pipes to {self.num_processes} ranks cannot be opened: {error.strerror}{LIMIT}") from None
        self.errors: Sequence[Connection] = errors
        self.ranks = [
            context.Process(
                target=self._rank_main,
                args=(rank, os.getpid(), trainer, function, args, kwargs, result_of_rank_zero, error_of),
            )
            for rank in range(self.num_processes)
        ]
        # A signal that comes meanwhile waits until there are handlers in all processes.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        before = {number: signal.signal(number, self._pass_on) for number in not_ignored(SIGNALS)}
        try:
            try:
                for process in self.ranks:
                    process.start()
            except OSError as error:
                raise NotForked(f"{self.num_processes} ranks cannot be forked: {error.strerror}{LIMIT}") from None
            for end in (result_of_rank_zero, *error_of):
                end.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            if self.passed_on is not None:  # another thread took it, when not all ranks were there
                self._pass_on(self.passed_on, None)
            output = self._join(result, errors)
        finally:
            self._end()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            for number, handler in before.items():
                signal.signal(number, handler)
        if output == STOPPED:
            raise SIGTERMException
        if trainer is None:
            return output
        self.has_fit = self.fits
        self.adopt(output, trainer)
        return output.trainer_results

    def _rank_main(
        self,
        rank: int,
        parent: int,
        trainer: L.Trainer | None,
        function: Callable,
        args: tuple,
        kwargs: dict,
        result: Connection,
        error_of: Sequence[Connection],
    ) -> None:
        die_with(parent)
        error_of_this = error_of[rank]
        # So that the parent's read of a rank that dies as it writes comes to an end.
        for end in (*error_of, result):
            if end is not error_of_this and not (end is result and rank == 0):
                end.close()
        # Ctrl-C reaches the whole process group; the parent decides, and ends the ranks.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Without the handlers of the parent, which came along. Until it listens (`listen_while_fitting`) a rank has
        # nothing to save, and may wait for others where no handler of Python's would run.
        for number in not_ignored(SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.environ["LOCAL_RANK"] = str(rank)
        try:
            self.check_fork_can_use_cuda()
            output = function(*args, **kwargs)
            if trainer is not None and rank == 0:
                output = self.rank_zero_output(trainer, output)
        except SIGTERMException:
            output = STOPPED
            for logger in trainer.loggers if trainer else ():
                logger.finalize("finished")
        except BaseException as error:
            details = "" if isinstance(error, Told) else traceback.format_exc()
            error_of_this.send((time.time(), rank, one_line(error), details))
            for logger in trainer.loggers if trainer else ():
                logger.finalize("failed")  # Lightning does so in the parent, where no logger has begun
            raise SystemExit(1) from None
        if rank == 0:
            result.send(output)

    def _pass_on(self, number: int, frame: Any) -> None:
        """Sends a signal on to all ranks: `kill` sends it to this process alone."""
        self.passed_on = number
        for process in self.ranks:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    def _join(self, result: Connection, errors: Sequence[Connection]) -> Any:
        """Waits for all ranks; returns rank 0's result."""
        awaited = {result: None} | {process.sentinel: process for process in self.ranks}
        try:
            return self._await(awaited, result, errors, math.inf)
        except KeyboardInterrupt:
            self._pass_on(signal.SIGTERM, None)
            self._await(awaited, result, errors, time.monotonic() + AFTER_CTRL_C_S)
            raise

    def _await(
        self,
        awaited: dict[Any, BaseProcess | None],
        result: Connection,
        errors: Sequence[Connection],
        deadline: float,
    ) -> Any:
        """Reads result and errors as soon as they are there: a rank that has filled its pipe cannot end before they are
        read, nor can one whose logger is still closing. Takes what it no longer awaits out of `awaited`."""
        output = None
        open_errors = list(errors)
        while awaited and (left := deadline - time.monotonic()) > 0:
            for ready in wait([*awaited, *open_errors], None if math.isinf(left) else left):
                if ready in open_errors:
                    open_errors.remove(ready)
                    if (report := received(ready)) is not None:
                        raise self._first_failure(open_errors, [report])
                    continue
                process = awaited.pop(ready)
                if process is None:
                    output = received(result)
                    continue
                process.join()
                if self.fits and self.passed_on and process.exitcode == -self.passed_on:  # before it listened
                    return STOPPED
                if process.exitcode != 0:
                    raise self._first_failure(open_errors, [])
        return output

    def _first_failure(self, errors: Sequence[Connection], reports: list[tuple[float, int, str, str]]) -> RankFailed:
        """Returns the failure that caused the others: when a rank dies its peers fail too, on broken connections. The
        cause is a rank that was killed, else the earliest report: of `reports`, and of those that come in a while."""
        grace_s = WATCHDOG_GRACE_S if self._aborted_by_watchdog() else GRACE_S
        deadline = time.monotonic() + grace_s
        unread: list[Any] = list(errors)
        while unread and (left := deadline - time.monotonic()) > 0:
            for error in wait(unread, left):
                unread.remove(error)
                if (report := received(error)) is not None:  # type: ignore[arg-type]
                    reports.append(report)
        self._see_the_ended(unread)
        if late := self._late(reports):
            return late
        for rank, process in enumerate(self.ranks):
            if process.exitcode is not None and process.exitcode < 0:
                return RankFailed(rank, f"killed by {signal.Signals(-process.exitcode).name}")
        if not reports:
            codes = [(rank, process.exitcode) for rank, process in enumerate(self.ranks) if process.exitcode]
            return RankFailed(codes[0][0], f"exited with status {codes[0][1]}")
        _, rank, message, details = min(reports)
        return RankFailed(rank, message, details)

    def _see_the_ended(self, unread: Sequence[Connection]) -> None:
        """Joins the ranks that have closed their pipes: the system closes an ending process's files before anybody can
        see that it has ended, and one that seems to live would be blamed for what it was ended by."""
        deadline = time.monotonic() + GRACE_S
        for pipe, process in zip(self.errors, self.ranks, strict=True):
            if pipe not in unread:
                process.join(max(deadline - time.monotonic(), 0))

    def _late(self, reports: list[tuple[float, int, str, str]]) -> RankFailed | None:
        """Returns the failure of the ranks that missed a collective which timed out; None if none did. A rank that
        waits for another times out, or loses its connection to one that did; the missing ones report nothing. On GPUs
        it is NCCL's watchdog that notices, and aborts its rank."""
        aborted = self._aborted_by_watchdog()
        if not aborted and not any(TIMED_OUT.search(message) for _, _, message, _ in reports):
            return None
        others = [*(rank for _, rank, _, _ in sorted(reports)), *aborted]
        silent = set(range(len(self.ranks))) - set(others)
        late = [rank for rank in sorted(silent) if self.ranks[rank].is_alive()]
        if late:
            return RankFailed(late[0], waited_in_vain(late, others, self.last_actions.of))
        if aborted:
            return RankFailed(aborted[0], aborted_by_watchdog(aborted, self.last_actions.of))
        return None

    def _aborted_by_watchdog(self) -> list[int]:
        on_gpus = self.strategy.root_device.type == "cuda"
        return [rank for rank, one in enumerate(self.ranks) if on_gpus and one.exitcode == -signal.SIGABRT]

    def _end(self) -> None:
        for process in self.ranks:
            if process.is_alive():
                process.kill()
        for process in self.ranks:
            if process.pid is not None:
                process.join()


def received(pipe: Connection) -> Any:
    """Returns what a rank sent; None where it ended before it had sent anything, or all of it."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def one_line(error: BaseException) -> str:
    """Returns type and first line of the innermost cause: pipelining wraps a stage's error in one that lists
    tensors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def die_with(parent: int) -> None:
    """Ends this process when its parent ends in any way, so that no orphan keeps a port or a GPU. Linux only."""
    if not os.path.exists("/proc/self"):
        return
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os._exit(1)
