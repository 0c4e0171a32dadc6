"""More GPUs asked for than there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from project.preflight.world import launched_ranks, named_layouts
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

# What a driver leaves in the file system: NVIDIA's, AMD's, and that of Windows' Linux.
_DRIVERS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/kfd", "/dev/dxg")


def count_gpus() -> int:
    """Creates no CUDA context, which would forbid a later fork, and imports torch (2 s) only if a driver is there."""
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def gpu_faults(
    trainer: Mapping[str, Any],
    layout: ParallelLayout,
    model: ModelConfig,
    batch: tuple[int, int],
    environ: Mapping[str, str],
    gpus: Callable[[], int],
) -> Iterator[Fault]:
    """`auto` means the GPUs wherever there are any."""
    accelerator = trainer["accelerator"]
    if accelerator not in ("auto", "cuda", "gpu"):
        return
    here = gpus()
    if here == 0:
        if accelerator != "auto":
            yield Fault("trainer.accelerator", accelerator, "no GPU is present; nearest trainer.accelerator=cpu")
        return
    present = here * _nodes(trainer.get("num_nodes", 1), environ)
    if layout.world_size > present:
        message = (
            f"{layout.world_size} ranks (parallel.pp x parallel.dp x parallel.tp) need as many GPUs, but {present} "
            f"{'is' if present == 1 else 'are'} present; use {named_layouts(layout, model, batch, present)}; "
            "or trainer.accelerator=cpu"
        )
        yield Fault("trainer.accelerator", accelerator, message)


def _nodes(asked: object, environ: Mapping[str, str]) -> int:
    """As the launcher has it, which knows better than the config."""
    launched = launched_ranks(environ)
    if launched is None:
        return asked if isinstance(asked, int) and asked > 0 else 1
    variable, ranks = launched
    if variable == "WORLD_SIZE":
        return max(ranks // max(int(environ.get("LOCAL_WORLD_SIZE", ranks)), 1), 1)
    return int(environ.get("SLURM_NNODES", "1"))
