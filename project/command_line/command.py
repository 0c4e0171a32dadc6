"""A command that Hydra configures, as a record; and the resolvers that the configuration files use as `${name:...}`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from project.preflight.machine import Surroundings
from project.spec.fault import Fault
from project.spec.figures import directions

Config = dict[str, Any]
"""A configuration as plain values, interpolations resolved, without Hydra's own part."""


@dataclass(frozen=True)
class Command:
    """The checks of a command's configuration and the words of its help.

    `name` is that of the script and of the configuration file. `faults` lists what forbids the run. `warnings` is
    called only where there are no faults, and lists what merely makes the run slow or strange. `objective_faults` lists
    what forbids a sweep to optimize the runs' objective.

    `purpose`, `example` and `groups` (of configs/) are what `--help` shows. `missing` says, of a key that the user must
    give, what to give. `needed` are the keys without which nothing can be checked. `paths` and `texts` are the keys
    whose values are taken as the shell gave them (`project.command_line.verbatim`). `reads_documents` says that
    `document=FILE.md` configures it (`project.command_line.document`), `begins_with_weights` that `model=auto` does
    (`project.command_line.model_of_weights`).
    """

    name: str
    faults: Callable[[Config, Surroundings], list[Fault]]
    purpose: str
    example: str
    groups: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    reads_documents: bool = False
    begins_with_weights: bool = False
    warnings: Callable[[Config, Surroundings], list[str]] = lambda config, around: []
    objective_faults: Callable[[Config, Surroundings], Iterable[Fault]] = lambda config, around: []


def register_resolvers() -> None:
    """Registers the resolvers beside Hydra's own."""
    for resolver in (directions, ranks_per_node, layout_name, sweep_name):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def ranks_per_node(*, _root_: DictConfig) -> Any:
    layout = _root_.parallel
    return layout.pp * layout.dp * layout.tp // _root_.trainer.num_nodes


def layout_name(*, _root_: DictConfig) -> str:
    return "_".join(f"{name}{_root_.parallel[name]}" for name in ("pp", "dp", "tp", "ep", "etp"))


def sweep_name() -> str | None:
    """The last part of the sweep's folder."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
