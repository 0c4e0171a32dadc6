"""Builds the three libraries that stand in for an NVIDIA driver, and the environment in which torch finds them."""

import importlib.util
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
LIBRARIES = {  # by the names under which they are loaded: the first before any other, the others by torch
    "runtime.so": "runtime.c",
    "libcuda.so.1": "driver.c",
    "libnvidia-ml.so.1": "nvml.c",
}


def headers() -> Path | None:
    """CUDA's headers, complete, as the CUDA builds of torch bring them along with Triton."""
    found = importlib.util.find_spec("triton")
    folder = Path(found.origin).parent / "backends/nvidia/include" if found and found.origin else None
    return folder if folder and (folder / "cuda_runtime_api.h").exists() else None


def build(folder: Path) -> None:
    """Raises `FileNotFoundError` without CUDA's headers, `CalledProcessError` where the compiler does not take them."""
    if (declared := headers()) is None:
        raise FileNotFoundError("no headers of CUDA, which Triton brings along with a CUDA build of torch")
    for library, source in LIBRARIES.items():
        shared = ["cc", "-shared", "-fPIC", "-O1", f"-Wl,-soname,{library}", f"-I{declared}"]
        subprocess.run([*shared, "-o", folder / library, HERE / source], check=True)


def environment(folder: Path, gpus: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process that is to see so many GPUs."""
    return dict(environ) | {
        "LD_PRELOAD": str(folder / "runtime.so"),
        "LD_LIBRARY_PATH": str(folder),
        "PRETENDED_GPUS": str(gpus),
    }
