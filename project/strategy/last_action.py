"""What each rank began last, for whoever asks when they no longer answer: in memory shared with the process that forked
them, or posted where no process is the parent of all (`project.strategy.posted_action`)."""

import mmap
import re
from collections.abc import Callable, Sequence

WIDTH = 128
TIMED_OUT = re.compile(r"timed? ?out|timeout", re.IGNORECASE)
COMING_UP = "coming up"
OTHERS_NAMED = 4


class LastActions:
    """Written by the ranks, each its own line, and read by the process that forked them: in shared memory that has no
    name, and so is left behind by nobody."""

    def __init__(self, ranks: int) -> None:
        self.memory = mmap.mmap(-1, ranks * WIDTH)

    def note(self, rank: int, text: str) -> None:
        self.memory[rank * WIDTH : (rank + 1) * WIDTH] = text.encode()[:WIDTH].ljust(WIDTH, b"\0")

    def of(self, rank: int) -> str:
        return self.memory[rank * WIDTH : (rank + 1) * WIDTH].rstrip(b"\0").decode(errors="replace") or COMING_UP


def waited_in_vain(late: Sequence[int], others: Sequence[int], began: Callable[[int], str]) -> str:
    """What is said of the first of the late ranks."""
    those, some = (
        "; ".join(f"rank {rank}: {began(rank)}" for rank in ranks) for ranks in (late, others[:OTHERS_NAMED])
    )
    told = f"did not arrive where the others wait (watchdog.timeout_s); began last: {those}; the others: {some}"
    return told if len(late) == 1 else f"with ranks {list(late[1:])} it {told}"
