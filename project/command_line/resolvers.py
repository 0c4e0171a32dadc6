"""What the configs ask for as `${name:...}` beside Hydra's own."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from project.command_line.key_help import key_help
from project.metrics.figures import directions


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("key_help", key_help, replace=True)  # for --help, which is Hydra's
    OmegaConf.register_new_resolver("directions", directions, replace=True)
    OmegaConf.register_new_resolver("ranks_per_node", ranks_per_node, replace=True)


def ranks_per_node(*, _root_: DictConfig) -> Any:
    layout = _root_.parallel
    return layout.pp * layout.dp * layout.tp // _root_.trainer.num_nodes
