"""Jobs that are already done when a sweep is started again."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.run_folder import read_summary
from project.spec.sections import SECTIONS, without_hydra_keys
from project.spec.untrusted import Unreadable, as_mapping, read_yaml


def is_done(cfg: Any, run_folder: Path) -> bool:
    """True if a run with exactly this configuration was completed in the folder."""
    try:
        summary, before = read_summary(run_folder), run_folder / "config.yaml"
        if summary is None or summary.get("status") != "completed" or not before.exists():
            return False
        return _comparable(as_mapping(before, read_yaml(before))) == _comparable(cfg)
    except Unreadable:
        return False


def _comparable(cfg: Any) -> dict[str, Any]:
    """The configuration without `resume`, as where a run starts from does not change its result, and without the
    modules of classes, as a class that has moved makes the same run; layout and model with the defaults of keys that an
    older version did not have."""
    config = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    assert isinstance(config, dict)
    sections = {key: filled(key, config[key]) for key in SECTIONS if isinstance(config.get(key), dict)}
    return {str(key): _without_modules(value) for key, value in {**config, **sections}.items() if key != "resume"}


def filled(name: str, section: dict[str, Any]) -> dict[str, Any]:
    """The section's own keys, with the record's defaults for those that it lacks."""
    defaults = {field.name: field.default for field in fields(SECTIONS[name])}
    return defaults | without_hydra_keys(section)


def _without_modules(value: Any) -> Any:
    """The value with each `_target_`, at any depth, cut to the name of the class."""
    if isinstance(value, list):
        return [_without_modules(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    cut = {key: _without_modules(entry) for key, entry in value.items()}
    return cut | {"_target_": str(value["_target_"]).rpartition(".")[2]} if "_target_" in value else cut
