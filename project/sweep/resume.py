"""Which jobs of a sweep that is started again are done already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from project.run_folder import read_summary
from project.spec.sections import SECTIONS, without_hydra_keys


def is_done(cfg: Any, run_folder: Path) -> bool:
    """Whether a run with this very configuration was completed there; a changed one can use its checkpoint alone."""
    summary, before = read_summary(run_folder), run_folder / "config.yaml"
    if summary is None or summary["status"] != "completed" or not before.exists():
        return False
    return _of_the_run(OmegaConf.load(before)) == _of_the_run(cfg)


def _of_the_run(cfg: Any) -> dict[str, Any]:
    """The configuration without `resume`, which says where a run starts from, and without the modules that classes lie
    in: a class that has moved makes the same run."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    sections = {key: without_hydra_keys(config[key]) for key in SECTIONS if isinstance(config.get(key), dict)}
    return {str(key): _without_modules(value) for key, value in {**config, **sections}.items() if key != "resume"}


def _without_modules(value: Any) -> Any:
    """`_target_` values cut to the name of the class, at any depth."""
    if isinstance(value, list):
        return [_without_modules(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    cut = {key: _without_modules(entry) for key, entry in value.items()}
    return cut | {"_target_": str(value["_target_"]).rpartition(".")[2]} if "_target_" in value else cut
