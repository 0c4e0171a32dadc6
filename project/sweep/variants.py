"""`+sweep=layouts`, `+sweep=schedules`, `+sweep=microbatches`: the legal variants of the configured layout, as jobs.

A Hydra callback of `configs/sweep/` puts each variant into Hydra's config store as a choice of the group `parallel`,
named by what sets it apart, and sweeps over those names: a job is `parallel=pp2_dp1_tp2_ep2_etp1`, under any sweeper
and launcher. Several choices multiply: `+sweep=[layouts,schedules]`.
"""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from project import command_line
from project.preflight.sections import filled
from project.spec.fault import Fault
from project.spec.layout import ParallelLayout
from project.spec.legal_values import legal
from project.spec.legality.layouts import legal_layouts, legal_microbatches, legal_schedules, unusable_values
from project.spec.model import ModelConfig

GROUP = "parallel"
NAMED = {"schedule": "", "microbatches": "mb", "virtual_stages": "v"}
"""How a field is called in a name, where not as itself."""
DEGREES = ("pp", "dp", "tp", "ep", "etp")
MOST_RANKS = 64


class Variants(Callback, ABC):
    @abstractmethod
    def variants(self, layout: ParallelLayout, setting: Setting) -> list[ParallelLayout]:
        """Of a layout, legal or not, the legal ones."""

    @abstractmethod
    def fault(self, layout: ParallelLayout, setting: Setting) -> Fault:
        """Why there is none."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Whoever has swept over layouts before is multiplied with."""
        before = (config.hydra.sweeper.params or {}).get(GROUP)
        layouts = [_stored(name) for name in before.split(",")] if before else [_layout(_section(config, GROUP))]
        setting = Setting.of(config)
        if useless := unusable_values(layouts[0], setting.model, setting.batch_size, setting.seq_len):
            command_line.refuse(useless, os.environ)
        found = [variant for layout in layouts for variant in self.variants(layout, setting)]
        if not found:
            command_line.refuse([self.fault(layouts[0], setting)], os.environ)
        named = variant_names(found)
        for name, layout in named.items():
            ConfigStore.instance().store(group=GROUP, name=name, node=_node(layout), provider="sweep")
        _sweep_over(config, list(named))
        config.parallel.update(_node(found[0]))  # a launcher may ask how many ranks there are


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a layout has to be legal for, and what of it was asked for."""

    model: ModelConfig
    batch_size: int
    seq_len: int
    asked: dict[str, Any]

    @classmethod
    def of(cls, config: DictConfig) -> Setting:
        model, _ = filled(ModelConfig, "model", _section(config, "model"))
        return cls(model, config.data.batch_size, config.data.seq_len, _section(config, "sweep"))


class Layouts(Variants):
    """All splits over `sweep.world_size` ranks (null: as many as the configured layout has) that have those of the
    degrees `sweep.pp`, `sweep.dp`, `sweep.tp`, `sweep.ep` and `sweep.etp` that are given."""

    def variants(self, layout: ParallelLayout, setting: Setting) -> list[ParallelLayout]:
        return self._of(self._world_size(layout, setting), layout, setting)

    def fault(self, layout: ParallelLayout, setting: Setting) -> Fault:
        wanted = [f"sweep.{name}={setting.asked[name]}" for name in DEGREES if setting.asked.get(name) is not None]
        size = self._world_size(layout, setting)
        sizes = [number for number in range(1, MOST_RANKS + 1) if self._of(number, layout, setting)]
        reason = f"no layout of the model is legal for so many ranks{' with ' if wanted else ''}{' '.join(wanted)}"
        return Fault("sweep.world_size", size, f"{reason}; {legal(size, sizes)}")

    @staticmethod
    def _world_size(layout: ParallelLayout, setting: Setting) -> int:
        asked = setting.asked.get("world_size")
        return layout.world_size if asked is None else asked

    @staticmethod
    def _of(world_size: Any, layout: ParallelLayout, setting: Setting) -> list[ParallelLayout]:
        if type(world_size) is not int or world_size < 1:
            return []
        found = legal_layouts(setting.model, world_size, setting.batch_size, setting.seq_len, like=layout)
        wanted = {name: setting.asked.get(name) for name in DEGREES}
        return [one for one in found if all(v in (None, getattr(one, name)) for name, v in wanted.items())]


class Schedules(Variants):
    def variants(self, layout: ParallelLayout, setting: Setting) -> list[ParallelLayout]:
        return legal_schedules(setting.model, layout, setting.batch_size, setting.seq_len)

    def fault(self, layout: ParallelLayout, setting: Setting) -> Fault:
        return Fault("sweep", "schedules", f"no schedule is legal for {layout} of this model and batch")


class Microbatches(Variants):
    def variants(self, layout: ParallelLayout, setting: Setting) -> list[ParallelLayout]:
        return legal_microbatches(setting.model, layout, setting.batch_size, setting.seq_len)

    def fault(self, layout: ParallelLayout, setting: Setting) -> Fault:
        return Fault("sweep", "microbatches", f"no number of them is legal for {layout} of this model and batch")


def variant_names(layouts: list[ParallelLayout]) -> dict[str, ParallelLayout]:
    """By the degrees where those differ, and whatever else does."""
    fields = [field.name for field in dataclasses.fields(ParallelLayout)]
    differing = {name for name in fields if len({getattr(layout, name) for layout in layouts}) > 1}
    if differing & set(DEGREES) or not differing:
        differing |= {"pp", "dp", "tp", "ep"}
    named: dict[str, ParallelLayout] = {}
    for layout in layouts:
        words = [f"{NAMED.get(name, name)}{getattr(layout, name)}" for name in fields if name in differing]
        named.setdefault("_".join(words), layout)
    return named


def _sweep_over(config: DictConfig, names: list[str]) -> None:
    """What the command says of single keys of the layout has gone into the variants, and would undo them."""
    parser = OverridesParser.create()
    kept = []
    for text in config.hydra.overrides.task:
        override = parser.parse_override(text)
        of_layout = override.key_or_group.partition(".")[0] == GROUP
        if not of_layout or override.is_sweep_override():
            kept.append(text)
    with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
        config.hydra.sweeper.params = {**(config.hydra.sweeper.params or {}), GROUP: ",".join(names)}
        config.hydra.overrides.task = kept


def _section(config: DictConfig, name: str) -> dict[str, Any]:
    """Empty where there is none."""
    section: Any = OmegaConf.to_container(config.get(name) or OmegaConf.create(), resolve=True)
    return section


def _layout(values: dict[str, Any]) -> ParallelLayout:
    return filled(ParallelLayout, GROUP, values)[0]


def _stored(name: str) -> ParallelLayout:
    node: Any = OmegaConf.to_container(ConfigStore.instance().load(f"{GROUP}/{name}.yaml").node)
    return _layout(node)


def _node(layout: ParallelLayout) -> dict[str, Any]:
    return {"_target_": f"{ParallelLayout.__module__}.{ParallelLayout.__qualname__}"} | dataclasses.asdict(layout)
