"""Hydra's own command line: which flags it takes, and which arguments are overrides; and its own sweeper."""

from argparse import ArgumentParser

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf


def command_line_parser() -> ArgumentParser:
    """Returns the parser that `hydra.main` uses: flags such as `--multirun` and `--config-name`, and `overrides`."""
    return get_args_parser()


def optimizes(hydra: DictConfig) -> bool:
    """Returns whether the sweeper of Hydra's configuration asks for its jobs' results: any but Hydra's own, which lists
    its jobs."""
    own = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"
    return OmegaConf.select(hydra, "sweeper._target_") != own
