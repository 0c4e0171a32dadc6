"""Warnings of what makes a run slow on this machine."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from project.preflight.gpus import VISIBLE, Silence, visible, why_none
from project.preflight.machine import Surroundings, on_gpus
from project.spec.layout import ParallelLayout

_INSTRUCTIONS = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# Measured on one core without them, products of 512 x 512: bf16 0.4 GFLOP/s against 60 to 75 in fp32; fp16 2.3
# against 56 where AVX-512 helps with the conversion, and as bf16 where it does not.
_HOW_SLOW = {"bf16": "about two hundred times", "16": "25 to two hundred times"}

QUICK_GROUPED_PRODUCT = (9, 10)
"""Major compute capabilities for which torch's grouped product has a kernel; on others it loops over the groups, whose
ends it copies to the host (aten/src/ATen/native/GroupedMMUtils.h)."""


def machine_warnings(trainer: Mapping[str, Any], layout: ParallelLayout, around: Surroundings) -> list[str]:
    """Warns, on a processor, of half precision without instructions for it, or of a GPU that is left idle; on GPUs of a
    precision without a quick grouped product, or groups of ranks that span nodes."""
    accelerator, precision = trainer["accelerator"], str(trainer["precision"])
    if not on_gpus(accelerator, around):
        idle = accelerator == "auto" and around.hardware.has_gpu
        why = why_none(around.hardware, around.environ) if idle else ""
        unused = [f"trainer.accelerator=auto: the ranks run on the processor, for {why}"] if idle else []
        return [*unused, *half_precision_warnings(precision)]
    grouped = _grouped_product_warnings(precision) or _older_card_warnings(accelerator, around)
    return [*grouped, *_spanning_warnings(layout, trainer["num_nodes"])]


def _older_card_warnings(accelerator: str, around: Surroundings) -> list[str]:
    driver = around.hardware.driver()
    cards = () if isinstance(driver, Silence) else visible(driver.cards, around.environ.get(VISIBLE))
    names = sorted({card.name for card in cards if card.capability[0] not in QUICK_GROUPED_PRODUCT})
    return [
        f"trainer.accelerator={accelerator}: torch's grouped product of the experts is quick on Hopper and Blackwell "
        f"(compute capability 9 and 10) alone; on {name} each call waits for the host"
        for name in names
    ]


def _grouped_product_warnings(precision: str) -> list[str]:
    if precision.startswith("bf16"):
        return []
    return [
        f"trainer.precision={precision}: on a GPU torch's grouped product of the experts is quick in bf16 alone (on "
        "Hopper and Blackwell); in this precision each call waits for the host; trainer.precision=bf16-mixed is quick"
    ]


def _spanning_warnings(layout: ParallelLayout, nodes: int) -> list[str]:
    """A warning for each axis inside a stage whose groups do not lie within one node each."""
    on_a_node = layout.world_size // nodes
    return [
        f"parallel.{name}={degree}: its groups span nodes of {on_a_node} ranks each, whose links are many times slower "
        "than those within one"
        for name in ("tp", "ep", "etp")
        if (degree := getattr(layout, name)) > 1 and nodes > 1 and on_a_node % (layout.stride(name) * degree)
    ]


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
