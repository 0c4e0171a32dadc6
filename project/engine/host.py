"""The machine under a process: its GPUs, its cores, and the C allocator.

Imports no torch before a GPU's driver is found: a configuration is judged first.
"""

import ctypes
import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from project.planner.machine.this_host import available_cores
from project.preflight.gpus import Build

# What a driver leaves in the file system: NVIDIA's, AMD's, and that of Windows' Linux.
_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/kfd", "/dev/dxg")


def count_gpus() -> int:
    """Creates no CUDA context, which would forbid a later fork, and imports torch (2 s) only if a driver is there.
    There is no GPU for a torch that cannot be imported, as where NCCL's library is missing."""
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return 0
    try:
        import torch
    except (ImportError, OSError):
        return 0
    if torch.version.cuda and os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
        return 1  # CUDA shows a process one slice at most; torch would start CUDA to count them
    return torch.cuda.device_count()


def torch_build() -> Build:
    try:
        import torch
        import torch.distributed as dist

        from project.compat.torch_internals import cuda_architectures
    except (ImportError, OSError) as error:
        return Build("", None, nccl=False, broken=str(error).splitlines()[0])
    nccl = dist.is_available() and dist.is_nccl_available()
    return Build(torch.__version__, torch.version.cuda, nccl, cuda_architectures())


def threads_of_a_rank(processes_here: int, environ: Mapping[str, str]) -> int:
    """Returns `OMP_NUM_THREADS` where a person set it, else the rank's share of the machine's cores. A 1 from torchrun
    is its own default: under every launcher a sum is shared by as many threads, which decides its last bit."""
    asked = environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0 and (asked != "1" or "TORCHELASTIC_RUN_ID" not in environ):
        return int(asked)
    return max(1, available_cores() // processes_here)


def let_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Has OpenMP's threads (libgomp's) wait asleep after a thousand turns, as they do where they know to be more than
    the cores; its default of 300,000 takes the cores from everything else that runs here. To be called before torch is
    imported. On two cores a step takes 0.64 of the time beside two busy processes, and as long as before on its own.
    """
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", "1000")


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # <malloc.h>
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Applies to this process and those forked from it. No-op without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, 64 * 2**20)
