"""The resolvers that the configuration files use as `${name:...}` beside Hydra's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from project.command_line.command import Command
from project.command_line.command_help import command_help
from project.command_line.key_help import key_help
from project.spec.figures import directions


def register_resolvers() -> None:
    for resolver in (directions, ranks_per_node, layout_name, sweep_name):
        OmegaConf.register_new_resolver(resolver.__name__, resolver, replace=True)


def register_help(command: Command) -> None:
    """The parts of `--help`, which Hydra prints."""
    OmegaConf.register_new_resolver("key_help", key_help, replace=True)
    OmegaConf.register_new_resolver("command_help", lambda: command_help(command), replace=True)


def ranks_per_node(*, _root_: DictConfig) -> Any:
    layout = _root_.parallel
    return layout.pp * layout.dp * layout.tp // _root_.trainer.num_nodes


def layout_name(*, _root_: DictConfig) -> str:
    degrees = [f"{name}{_root_.parallel[name]}" for name in ("pp", "dp", "tp", "ep", "etp")]
    return "_".join(degrees)


def sweep_name() -> str | None:
    """The last part of the sweep's folder."""
    hydra = HydraConfig.get()
    return Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
