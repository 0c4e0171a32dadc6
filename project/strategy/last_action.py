"""The last action that each rank began, for the error message when a collective times out: in memory shared with the
process that forked the ranks or, where no process is the parent of all (torchrun, SLURM), posted in the store of the
process group.
"""

import mmap
import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from project.spec.fault import Told

WIDTH = 128
TIMED_OUT = re.compile(r"timed? ?out|timeout", re.IGNORECASE)
COMING_UP = "coming up"
OTHERS_NAMED = 4


class LastActions:
    """One line for each rank, which the rank writes and the process that forked it reads. The shared memory is
    anonymous, so that nobody leaves it behind."""

    def __init__(self, ranks: int) -> None:
        self.memory = mmap.mmap(-1, ranks * WIDTH)

    def note(self, rank: int, text: str) -> None:
        self.memory[rank * WIDTH : (rank + 1) * WIDTH] = text.encode()[:WIDTH].ljust(WIDTH, b"\0")

    def of(self, rank: int) -> str:
        return self.memory[rank * WIDTH : (rank + 1) * WIDTH].rstrip(b"\0").decode(errors="replace") or COMING_UP


def waited_in_vain(late: Sequence[int], others: Sequence[int], began: Callable[[int], str]) -> str:
    """Returns the message about the first of the ranks that missed a collective which timed out."""
    those, some = (_last_of(ranks, began) for ranks in (late, others[:OTHERS_NAMED]))
    told = f"did not arrive where the others wait (watchdog.timeout_s); began last: {those}; the others: {some}"
    return told if len(late) == 1 else f"with ranks {list(late[1:])} it {told}"


def aborted_by_watchdog(aborted: Sequence[int], began: Callable[[int], str]) -> str:
    """Returns the message about ranks that all waited, so that none was missing: they may have waited for different
    collectives, or for a GPU that hangs."""
    return (
        "was aborted (SIGABRT), as NCCL's watchdog does with a rank that waited longer than watchdog.timeout_s; "
        f"began last: {_last_of(aborted, began)}; NCCL's own record is in nccl_trace_rank_*"
    )


def _last_of(ranks: Sequence[int], began: Callable[[int], str]) -> str:
    return "; ".join(f"rank {rank}: {began(rank)}" for rank in ranks)


POST_S = 1.0
"""Seconds between two posts: posting each action at once would cost a round trip for each."""
GRACE_S = 10.0
"""Seconds that a rank waits after its timeout for the others' timeouts: they began to wait a little later, in the same
step, and until then nobody knows which rank is missing."""
ANSWER_S = 10.0
"""Seconds that the store may take to answer: it ends with the process that hosts it, which may be the missing one."""


class NotArrived(Told):
    """Some ranks missed a collective, which timed out on the others."""


class PostedActions:
    """Posts this rank's last action every second; `timeout` is the process group's."""

    def __init__(self, store: Any, rank: int, ranks: int, timeout: timedelta) -> None:
        # A connection of its own, for the main thread's may be in the middle of waiting for somebody.
        self.store = dist.PrefixStore("last actions", store.clone())
        self.rank, self.ranks = rank, ranks
        self.grace_s = min(GRACE_S, timeout.total_seconds() / 2)
        self.text = COMING_UP
        self.ended = threading.Event()
        threading.Thread(target=self._post, name="last actions", daemon=True).start()

    def note(self, text: str) -> None:
        self.text = text

    def end(self) -> None:
        self.ended.set()

    def _post(self) -> None:
        posted = None
        while not self.ended.wait(POST_S):
            if (text := self.text) != posted:
                try:
                    self.store.set(f"began {self.rank}", text)
                except dist.DistError:
                    return  # the process that hosts it is gone, and soon all are
                posted = text

    def not_arrived(self) -> NotArrived | None:
        """Returns which ranks are missing, for a rank whose collective timed out. None where no rank is, or the store
        does not answer."""
        found: list[NotArrived] = []
        asking = threading.Thread(target=self._ask, args=(found,), daemon=True)
        asking.start()
        asking.join(self.grace_s + ANSWER_S)
        return found[0] if found else None

    def _ask(self, found: list[NotArrived]) -> None:
        self.store.set(f"began {self.rank}", self.text)
        self.store.set(f"waits {self.rank}", "")
        time.sleep(self.grace_s)
        waiting = [rank for rank in range(self.ranks) if self.store.check([f"waits {rank}"])]
        late = sorted(set(range(self.ranks)) - set(waiting))
        if late:
            found.append(self._told(late, waiting))

    def _told(self, late: Sequence[int], waiting: Sequence[int]) -> NotArrived:
        """Returns the error: the full message on the first of the waiting ranks, a reference to it on the others."""
        if self.rank != waiting[0]:
            time.sleep(2 * POST_S)  # the first that ends is heard, and the others may be ended
            return NotArrived(f"rank {self.rank} waited in vain; rank {waiting[0]} says for whom")
        return NotArrived(f"rank {late[0]} failed: {waited_in_vain(late, waiting, self._began)}")

    def _began(self, rank: int) -> str:
        key = f"began {rank}"
        return self.store.get(key).decode(errors="replace") if self.store.check([key]) else COMING_UP
