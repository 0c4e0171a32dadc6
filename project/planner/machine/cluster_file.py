"""Reading, checking and writing `configs/cluster/*.yaml`, with or without Hydra."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from project.configs import CONFIGS
from project.planner.machine.cluster import Cluster, field_names, part_of
from project.spec.fault import Fault, legal, said
from project.spec.untrusted import as_mapping, read_yaml

CLUSTERS = CONFIGS / "cluster"


class ImpossibleCluster(ValueError):
    """A cluster with impossible figures; `faults` has each of them under its key."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(f"{fault.key}={fault.value}: {fault.message}" for fault in faults))
        self.faults = faults


def read_cluster(entries: Mapping[str, Any]) -> Cluster:
    """Builds a cluster from the mapping that its file contains.

    Raises:
        ImpossibleCluster: with every fault, each under its key.
    """
    try:
        return _CLUSTER.validate_python({key: value for key, value in entries.items() if key != "_target_"})
    except ValidationError as error:
        errors = error.errors(include_url=False)
        unknown_first = sorted(errors, key=lambda one: one["type"] != "unexpected_keyword_argument")
        raise ImpossibleCluster([_fault(one) for one in unknown_first]) from None


def cluster_faults(entries: Mapping[str, Any]) -> list[Fault]:
    """Lists everything that is wrong with the mapping of a cluster's file."""
    try:
        read_cluster(entries)
    except ImpossibleCluster as impossible:
        return impossible.faults
    return []


def load_cluster(name: str, folder: Path = CLUSTERS, **changes: Any) -> Cluster:
    """Reads the file of that name, merged over the files that its defaults list names. `changes` replaces figures of
    the first level.

    Raises:
        ImpossibleCluster: with every fault, each under its key.
    """
    return read_cluster({**cluster_entries(name, folder), **changes})


def cluster_entries(name: str, folder: Path = CLUSTERS) -> dict[str, Any]:
    """The mapping that a file contains, merged over those that its defaults list names."""
    entries = OmegaConf.to_container(_composed(name, folder))
    assert isinstance(entries, dict)
    return {str(key): value for key, value in entries.items()}


def write_cluster(cluster: Cluster, path: Path, heading: str) -> None:
    """Writes a cluster's file; `heading` becomes its comment, in which the source of the numbers is given."""
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    path.write_text(comment + OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(cluster))), encoding="utf-8")


_CLUSTER = TypeAdapter(Cluster)


def _composed(name: str, folder: Path) -> DictConfig:
    path = folder / f"{name}.yaml"
    own = OmegaConf.create(as_mapping(path, read_yaml(path)))
    below = [_composed(other, folder) for other in own.pop("defaults", [])]
    merged = OmegaConf.merge(*below, own)
    assert isinstance(merged, DictConfig)
    return merged


def _fault(error: Any) -> Fault:
    """A validation error in our words, under its full key."""
    location, value, context = error["loc"], error["input"], error.get("ctx", {})
    if "field" in context:
        location, value = (*location[:-1], context["field"]), context["value"]
    key = ".".join(["cluster", *map(str, location)])
    if error["type"] == "missing":
        return Fault(key, "null", "must be given")
    if error["type"] == "rule":
        return Fault(key, said(value), context["reason"])
    if error["type"] == "unexpected_keyword_argument":
        return Fault(key, said(value), f"is no key of it; {legal(location[-1], field_names(_at(location[:-1])))}")
    reason = "must be given" if value is None else f"must have the keys {', '.join(field_names(_at(location)))}"
    return Fault(key, said(value), reason)


def _at(location: Sequence[Any]) -> type:
    """The dataclass at a place of a cluster."""
    kind: type | None = Cluster
    for name in location:
        assert kind is not None
        kind = part_of(kind, name)
    assert kind is not None
    return kind
