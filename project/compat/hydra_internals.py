"""Hydra's own command line: which flags it takes, and which arguments are overrides."""

from argparse import ArgumentParser

from hydra._internal.utils import get_args_parser


def command_line_parser() -> ArgumentParser:
    """Returns the parser that `hydra.main` uses: flags such as `--multirun` and `--config-name`, and `overrides`."""
    return get_args_parser()
