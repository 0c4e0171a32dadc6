"""The GPUs of this machine."""

from pathlib import Path

# What a driver leaves in the file system: NVIDIA's, AMD's, and that of Windows' Linux.
_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/kfd", "/dev/dxg")


def count_gpus() -> int:
    """Creates no CUDA context, which would forbid a later fork, and imports torch (2 s) only if a driver is there."""
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()
