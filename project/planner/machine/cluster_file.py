"""Reading and writing `configs/cluster/*.yaml` without Hydra, as scripts and tests do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_entries import as_entries, read_cluster

CLUSTERS = Path(__file__).resolve().parents[3] / "configs" / "cluster"


def load_cluster(name: str, folder: Path = CLUSTERS, **changes: Any) -> Cluster:
    """The file of that name over those that its defaults list names; `changes` are of its first level.

    Raises:
        ImpossibleCluster: with every fault, each under its key.
    """
    entries = OmegaConf.to_container(_composed(name, folder))
    assert isinstance(entries, dict)
    return read_cluster({**{str(key): value for key, value in entries.items()}, **changes})


def write_cluster(cluster: Cluster, path: Path, heading: str) -> None:
    """`heading` says, in lines, where the numbers are from."""
    said = "".join(f"# {line}\n" for line in heading.splitlines())
    path.write_text(said + OmegaConf.to_yaml(OmegaConf.create(as_entries(cluster))), encoding="utf-8")


def _composed(name: str, folder: Path) -> DictConfig:
    own = OmegaConf.load(folder / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    below = [_composed(other, folder) for other in own.pop("defaults", [])]
    merged = OmegaConf.merge(*below, own)
    assert isinstance(merged, DictConfig)
    return merged
