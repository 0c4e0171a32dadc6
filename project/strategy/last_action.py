"""What each rank began last, for whoever asks when they no longer answer."""

import mmap

WIDTH = 128


class LastActions:
    """Written by the ranks, each its own line, and read by the process that forked them: in shared memory that has no
    name, and so is left behind by nobody."""

    def __init__(self, ranks: int) -> None:
        self.memory = mmap.mmap(-1, ranks * WIDTH)

    def note(self, rank: int, text: str) -> None:
        self.memory[rank * WIDTH : (rank + 1) * WIDTH] = text.encode()[:WIDTH].ljust(WIDTH, b"\0")

    def of(self, rank: int) -> str:
        return self.memory[rank * WIDTH : (rank + 1) * WIDTH].rstrip(b"\0").decode(errors="replace") or "coming up"
