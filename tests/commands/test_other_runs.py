"""`resume=auto` finds the experiment's other runs, whatever its name is made of."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from project.commands.train.starting_point import folders_of


@pytest.mark.parametrize("name", ["plain", "a[1]", "a*", "what?", "x y=z", "ünï", 3])
def test_runs_beside_this_one_are_found_by_the_experiment_s_name(name: object, tmp_path: Path) -> None:
    day = tmp_path / "2026-01-01"
    for clock, of in (("10-00-00", name), ("11-00-00", name), ("12-00-00", "another")):
        (day / f"{clock}_{of}" / "checkpoints").mkdir(parents=True)
    cfg = OmegaConf.create({"experiment_name": name, "callbacks": {"checkpoint": {"dirpath": None}}})
    found = folders_of(cfg, day / f"11-00-00_{name}")
    assert sorted(folder.parent.name for folder in found) == [f"10-00-00_{name}", f"11-00-00_{name}"]
