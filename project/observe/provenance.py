"""A run's provenance: the commit of its source, its device, and the time of its start."""

import os
import platform
import subprocess
import time
from pathlib import Path

import torch


def commit() -> str | None:
    """The commit that this source is checked out at; None outside a repository, or before its first commit."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, None) or platform.processor() or platform.machine()


def command_started() -> float:
    """The time at which this process was started, in seconds since the epoch; the present time if the system does not
    say.

    A forked rank starts later than the command, so this has to be called in the parent.
    """
    try:
        since_boot = float(Path("/proc/uptime").read_text().split()[0])
        # Field 2, the name, may have spaces and parentheses; starttime is field 22.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return time.time()
    return time.time() - (since_boot - ticks / os.sysconf("SC_CLK_TCK"))
