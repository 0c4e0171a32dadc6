"""The warning about half precision on a CPU that has no instructions for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from project.preflight.surroundings import Surroundings

_INSTRUCTIONS = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# Measured on one core without them, products of 512 x 512: bf16 0.4 GFLOP/s against 60 to 75 in fp32; fp16 2.3
# against 56 where AVX-512 helps with the conversion, and as bf16 where it does not.
_HOW_SLOW = {"bf16": "about two hundred times", "16": "25 to two hundred times"}


def precision_warnings(trainer: Mapping[str, Any], around: Surroundings) -> list[str]:
    """None where the ranks run on GPUs."""
    on_cpu = trainer["accelerator"] == "cpu" or (trainer["accelerator"] == "auto" and around.gpus() == 0)
    return half_precision_warnings(str(trainer["precision"])) if on_cpu else []


def half_precision_warnings(precision: str, cpu_info: Path = Path("/proc/cpuinfo")) -> list[str]:
    """None where `cpu_info` does not list the CPU's instructions."""
    kind = precision.partition("-")[0]
    if kind not in _INSTRUCTIONS or not cpu_info.exists():
        return []
    # x86 says "flags", ARM says "Features".
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpu_info.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None or _INSTRUCTIONS[kind] & set(found[1].split()):
        return []
    name = "bf16" if kind == "bf16" else "fp16"
    return [
        f"trainer.precision={precision}: this CPU has no {name} instructions, so that matrix products run "
        f"{_HOW_SLOW[kind]} slower than in fp32; trainer.precision=32-true is the quick one"
    ]
