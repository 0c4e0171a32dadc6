"""A warning for half precision on a CPU that has no instructions for it."""

from __future__ import annotations

import re
from pathlib import Path

_INSTRUCTIONS = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# Measured on one core without them, products of 512 x 512: bf16 0.4 GFLOP/s against 60 to 75 in fp32; fp16 2.3
# against 56 where AVX-512 helps with the conversion, and as bf16 where it does not.
_HOW_SLOW = {"bf16": "about two hundred times", "16": "25 to two hundred times"}


def half_precision_warnings(precision: str, cpu_info: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Nothing where the CPU does not say what it has."""
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
