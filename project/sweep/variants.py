"""Legal variants of a layout, which are the jobs of `+sweep=layouts`, `+sweep=schedules` and `+sweep=microbatches`."""

import dataclasses
from collections.abc import Callable
from typing import Any

from project.spec.fault import Fault, legal
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import legal_layouts, legal_microbatches, legal_schedules
from project.spec.model import ModelConfig
from project.sweep.jobs import DEGREES

NAMED = {"schedule": "", "microbatches": "mb", "virtual_stages": "v"}
"""A field's prefix in a variant's name, where it is not the field's own name."""
MOST_RANKS = 64  # of the world sizes that a refusal offers


@dataclasses.dataclass(frozen=True)
class Setting:
    """The model and batch that a variant must be legal for, and `asked`, the section `sweep` of the configuration."""

    model: ModelConfig
    batch_size: int
    seq_len: int
    asked: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Variation:
    """`variants` lists the legal variants of a layout that may itself be illegal; `fault` says why there is none."""

    variants: Callable[[ParallelLayout, Setting], list[ParallelLayout]]
    fault: Callable[[ParallelLayout, Setting], Fault]


def variant_names(layouts: list[ParallelLayout]) -> dict[str, ParallelLayout]:
    """The layouts by a name of the fields in which they differ; it has all degrees where the layouts differ in one."""
    fields = [field.name for field in dataclasses.fields(ParallelLayout)]
    differing = {name for name in fields if len({getattr(layout, name) for layout in layouts}) > 1}
    if differing & set(DEGREES) or not differing:
        differing |= {"pp", "dp", "tp", "ep"}
    named: dict[str, ParallelLayout] = {}
    for layout in layouts:
        words = [f"{NAMED.get(name, name)}{getattr(layout, name)}" for name in fields if name in differing]
        named.setdefault("_".join(words), layout)
    return named


def _splits(layout: ParallelLayout, setting: Setting) -> list[ParallelLayout]:
    """All legal layouts of `sweep.world_size` ranks (null: as many as `layout` has) that have the degrees given as
    `sweep.pp`, `sweep.dp`, `sweep.tp`, `sweep.ep` and `sweep.etp`."""
    return _splits_over(_world_size(layout, setting), layout, setting)


def _splits_over(world_size: Any, layout: ParallelLayout, setting: Setting) -> list[ParallelLayout]:
    if type(world_size) is not int or world_size < 1:
        return []
    found = legal_layouts(setting.model, world_size, setting.batch_size, setting.seq_len, like=layout)
    wanted = {name: setting.asked.get(name) for name in DEGREES}
    return [one for one in found if all(v in (None, getattr(one, name)) for name, v in wanted.items())]


def _world_size(layout: ParallelLayout, setting: Setting) -> Any:
    asked = setting.asked.get("world_size")
    return layout.world_size if asked is None else asked


def _no_split(layout: ParallelLayout, setting: Setting) -> Fault:
    wanted = [f"sweep.{name}={setting.asked[name]}" for name in DEGREES if setting.asked.get(name) is not None]
    size = _world_size(layout, setting)
    sizes = [number for number in range(1, MOST_RANKS + 1) if _splits_over(number, layout, setting)]
    reason = f"no layout of the model is legal for so many ranks{' with ' if wanted else ''}{' '.join(wanted)}"
    return Fault("sweep.world_size", size, f"{reason}; {legal(size, sizes)}")


VARIATIONS: dict[str, Variation] = {
    "layouts": Variation(_splits, _no_split),
    "schedules": Variation(
        lambda layout, setting: legal_schedules(setting.model, layout, setting.batch_size, setting.seq_len),
        lambda layout, _: Fault("sweep", "schedules", f"no schedule is legal for {layout} of this model and batch"),
    ),
    "microbatches": Variation(
        lambda layout, setting: legal_microbatches(setting.model, layout, setting.batch_size, setting.seq_len),
        lambda layout, _: Fault(
            "sweep", "microbatches", f"no number of them is legal for {layout} of this model and batch"
        ),
    ),
}
