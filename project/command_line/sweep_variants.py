"""The Hydra callback of `+sweep=layouts`, `+sweep=schedules` and `+sweep=microbatches`: legal variants as jobs.

It puts each variant of the configured layout into Hydra's config store as a choice of the group `parallel`, named by
what sets it apart, and sweeps over those names: a job is `parallel=pp2_dp1_tp2_ep2_etp1`, under any sweeper and
launcher. Several choices multiply: `+sweep=[layouts,schedules]`.
"""

import dataclasses
import os
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from project.command_line.refusal import refuse
from project.command_line.sweep_size import announcement
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import unusable_values
from project.spec.sections import layout_of, model_of
from project.sweep.variants import VARIATIONS, Setting, variant_names

GROUP = "parallel"


class SweepVariants(Callback):
    """`of` is a key of `VARIATIONS`."""

    def __init__(self, of: str) -> None:
        self.variation = VARIATIONS[of]

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Multiplies with the layouts that a callback before this one has put into the sweep."""
        before = (config.hydra.sweeper.params or {}).get(GROUP)
        layouts = [_stored(name) for name in before.split(",")] if before else [layout_of(_section(config, GROUP))]
        model = model_of(_section(config, "model"))
        setting = Setting(model, config.data.batch_size, config.data.seq_len, _section(config, "sweep"))
        if useless := unusable_values(layouts[0], setting.model, setting.batch_size, setting.seq_len):
            refuse(useless, os.environ)
        found = [variant for layout in layouts for variant in self.variation.variants(layout, setting)]
        if not found:
            refuse([self.variation.fault(layouts[0], setting)], os.environ)
        named = variant_names(found)
        for name, layout in named.items():
            ConfigStore.instance().store(group=GROUP, name=name, node=dataclasses.asdict(layout), provider="sweep")
        _sweep_over(config, list(named))
        config.parallel.update(dataclasses.asdict(found[0]))  # a launcher may ask how many ranks there are
        print(announcement(config, found), flush=True)


def _sweep_over(config: DictConfig, names: list[str]) -> None:
    """Drops the overrides of single keys of the layout, which are part of the variants and would undo them."""
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


def _stored(name: str) -> ParallelLayout:
    node: Any = OmegaConf.to_container(ConfigStore.instance().load(f"{GROUP}/{name}.yaml").node)
    return layout_of(node)
