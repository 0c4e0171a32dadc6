"""The load of other processes is what the cores were busy, less what this process and its children took."""

import os
import subprocess
import sys
import time

from project.calibration.load import OtherLoad, busy_seconds

STAT = """cpu  300 0 100 900 5 0 0 0 0 0
cpu0 200 10 50 400 5 7 3 30 0 0
cpu1 100 0 50 500 0 0 0 0 0 0
intr 123
"""


def test_busy_seconds_are_of_the_cores_asked_for_without_idle_and_waiting():
    assert busy_seconds(STAT, {0}, 100) == 3.0
    assert busy_seconds(STAT, {0, 1}, 100) == 4.5


def test_a_process_that_is_no_child_is_noticed_and_own_work_is_not(tmp_path):
    stat = tmp_path / "stat"
    core = min(os.sched_getaffinity(0))
    write = lambda busy: stat.write_text(f"cpu{core} {busy} 0 0 0 0 0 0 0 0 0\n")  # noqa: E731
    write(0)
    load = OtherLoad(stat)
    began = sum(os.times()[:4])
    while time.monotonic() - load._begun < 0.3:
        pass
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    ticks = os.sysconf("SC_CLK_TCK")
    write(round((sum(os.times()[:4]) - began) * ticks))
    assert load.remark() is None
    elapsed = time.monotonic() - load._begun
    write(round((sum(os.times()[:4]) - began + elapsed) * ticks))
    assert "kept 1." in (load.remark() or "") or "kept 0.9" in (load.remark() or "")


def test_where_nothing_counts_nothing_is_said(tmp_path):
    assert OtherLoad(tmp_path / "none").remark() is None
