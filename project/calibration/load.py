"""The load that other processes put on the cores while a calibration runs, as Linux counts it."""

import os
import re
import time
from collections.abc import Collection
from pathlib import Path

from project.planner.machine.this_host import available_cores

_STAT = Path("/proc/stat")
NOTICED = 0.1
"""The share of the cores from which the load of others is said."""


class OtherLoad:
    """Measures from its making on. `stat` is where Linux counts the time of each core; without it nothing is known."""

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat, self._begun = stat, time.monotonic()
        self._busy, self._own = self._counted(), _own_seconds()

    def cores(self) -> float:
        """The cores that processes other than this one and its ended children kept busy, on average so far."""
        elapsed = time.monotonic() - self._begun
        if self._busy is None or (now := self._counted()) is None or elapsed <= 0:
            return 0.0
        others = (now - self._busy) - (_own_seconds() - self._own)
        return min(float(available_cores()), max(0.0, others / elapsed))

    def remark(self) -> str | None:
        """The load in words, where it is enough to change what is measured."""
        cores = self.cores()
        if cores <= NOTICED * available_cores():
            return None
        return f"measured while other processes kept {cores:.1f} of {available_cores()} cores busy"

    def _counted(self) -> float | None:
        try:
            text = self._stat.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return None
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(available_cores())
        return busy_seconds(text, cores, os.sysconf("SC_CLK_TCK"))


def busy_seconds(stat: str, cores: Collection[int], ticks: int) -> float:
    """Seconds since the boot for which these cores were not idle, of the text of `/proc/stat`. Time that a hypervisor
    gave to others (steal) counts; that of guests is in that of users."""
    found = 0
    for core, counts in re.findall(r"^cpu(\d+) (.+)$", stat, re.MULTILINE):
        if int(core) in cores:
            user, nice, system, _, _, interrupts, soft_interrupts, steal, *_ = map(int, counts.split())
            found += user + nice + system + interrupts + soft_interrupts + steal
    return found / ticks


def _own_seconds() -> float:
    return sum(os.times()[:4])
