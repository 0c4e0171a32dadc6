"""A command that Hydra configures: its configuration's checks and the words of its help, as one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from project.preflight.surroundings import Surroundings
from project.spec.fault import Fault

Config = dict[str, Any]
"""A configuration as plain values, interpolations resolved, without Hydra's own part."""


@dataclass(frozen=True)
class Command:
    """`name` is that of the script and of the configuration file. `faults` lists what forbids the run. `warnings` is
    called only where there are no faults, and lists what merely makes the run slow or strange.

    `purpose`, `example` and `groups` (of configs/) are what `--help` shows. `missing` says, of a key that the user must
    give, what to give. `paths` and `texts` are the keys whose values are taken as the shell gave them
    (`project.command_line.verbatim`).
    """

    name: str
    faults: Callable[[Config, Surroundings], list[Fault]]
    warnings: Callable[[Config, Surroundings], list[str]]
    purpose: str
    example: str
    groups: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
