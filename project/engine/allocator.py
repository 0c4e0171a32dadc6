"""The C allocator, told to keep what it has.

A training step on a CPU allocates and frees tensors of megabytes by the thousand. glibc gives each back to the kernel,
which has to zero the pages again at the next: a third to a half of a naive step.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # <malloc.h>
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """For this process and those forked from it. Without glibc it does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_TOP_PAD, 64 * 2**20)
