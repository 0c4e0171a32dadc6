"""Which jobs of a sweep that is started again are done already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.run_folder import read_summary


def is_done(cfg: DictConfig, run_folder: Path) -> bool:
    """Whether this very config was completed there: of a changed one the checkpoint alone is of use."""
    summary, before = read_summary(run_folder), run_folder / "config.yaml"
    if summary is None or summary["status"] != "completed" or not before.exists():
        return False
    return _of_the_run(OmegaConf.load(before)) == _of_the_run(cfg)


def _of_the_run(cfg: Any) -> dict[str, Any]:
    """Without what says where it starts from."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items() if key != "resume"}
