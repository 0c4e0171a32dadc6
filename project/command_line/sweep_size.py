"""A sweep's size: the number of its jobs, and about how long they take by the plan."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from project.planner.config import cluster_faults_of, cluster_of, step_of
from project.planner.search.candidate import closed_form_seconds
from project.spec.layout import ParallelLayout


def number_of_jobs(config: DictConfig) -> int | None:
    """The jobs that the overrides of a sweep list, or the trials of an optimizing sweeper. None where neither says."""
    if trials := OmegaConf.select(config, "hydra.sweeper.n_trials"):
        return int(trials)
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    found, parser = 1, OverridesParser.create()
    typed = [parser.parse_override(text) for text in config.hydra.overrides.task]
    keys = {override.key_or_group for override in typed}
    listed = [parser.parse_override(f"{key}={value}") for key, value in params.items() if key not in keys]
    for override in (*typed, *listed):
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                return None
            found *= sum(1 for _ in override.sweep_string_iterator())
    return found


def announcement(config: DictConfig, layouts: Sequence[ParallelLayout]) -> str:
    """The number of jobs of a sweep over these layouts, all legal, and where the plan can be made their time."""
    plain: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, SECTIONS), resolve=True)
    steps, jobs = plain["trainer"].get("max_steps"), number_of_jobs(config) or len(layouts)
    said = f"{jobs} jobs of {steps} steps"
    if type(steps) is not int or cluster_faults_of(plain):
        return said
    step, cluster = step_of(plain), cluster_of(plain)
    seconds = mean(closed_form_seconds(step, layout, cluster) for layout in layouts) * steps * jobs
    return f"{said}, about {duration(seconds)} by the plan for {cluster.name}, besides the start of each"


SECTIONS = ["model", "parallel", "data", "trainer", "cluster", "seed"]


def duration(seconds: float) -> str:
    """In the unit in which a person would wait for it."""
    for unit, size, up_to in (("s", 1, 100), ("min", 60, 6000), ("h", 3600, 172_800)):
        if seconds < up_to:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 86_400:,.0f} days"
