"""The last action that each rank began, for the error message when a collective times out: in memory shared with the
process that forked the ranks. Without such a process the actions are posted (`project.strategy.posted_action`)."""

import mmap
import re
from collections.abc import Callable, Sequence

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
    those, some = (
        "; ".join(f"rank {rank}: {began(rank)}" for rank in ranks) for ranks in (late, others[:OTHERS_NAMED])
    )
    told = f"did not arrive where the others wait (watchdog.timeout_s); began last: {those}; the others: {some}"
    return told if len(late) == 1 else f"with ranks {list(late[1:])} it {told}"
