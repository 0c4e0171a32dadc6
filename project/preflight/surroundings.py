"""The facts outside of the configuration that a check depends on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Surroundings:
    """`gpus` counts the GPUs of this machine; it is called only where the accelerator may be a GPU, for counting
    imports torch. `run_folder` is None where it need not be checked."""

    environ: Mapping[str, str]
    gpus: Callable[[], int]
    run_folder: Path | None = None
