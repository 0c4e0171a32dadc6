"""Composing a config as Hydra will, but with all that is wrong with the overrides told at once and in plain words.

Hydra stops at the first override that it cannot apply. Here the command is composed as a whole; only if that fails are
the overrides applied one by one, and each that fails is explained and replaced by what it was most likely meant to be,
so that the rest is judged as part of the command that the user has in mind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig

from project.command_line.misspelling import explain, malformed
from project.fault import Fault

_GUESSES = 3  # a group's name and its choice may both be misspelt, and a plus sign be missing


@dataclass(frozen=True)
class Composed:
    """`cfg` holds Hydra's own part too. It is None where the faults leave open what the user wanted."""

    cfg: DictConfig | None
    faults: list[Fault]


def compose_or_explain(config_dir: Path, config_name: str, overrides: Sequence[str]) -> Composed:
    """Raises `HydraException` only if the config files themselves, without any override, cannot be composed."""
    with initialize_config_dir(str(config_dir), job_name=config_name, version_base="1.3"):
        whole = _attempt(config_name, overrides)
        return Composed(whole, []) if isinstance(whole, DictConfig) else _one_by_one(config_name, overrides, whole)


def compose_or_explain_sweep(config_dir: Path, config_name: str, overrides: Sequence[str]) -> Composed:
    """Every value of a sweep, each beside the first values of the others: as many configs as there are values, not as
    there are jobs. `cfg` is the first job's.
    """
    with initialize_config_dir(str(config_dir), job_name=config_name, version_base="1.3"):
        values = [jobs for override in overrides if (jobs := _sweep_values(override))]
    first = [options[0] for options in values]
    others = [[*first[:i], option, *first[i + 1 :]] for i, options in enumerate(values) for option in options[1:]]
    composed = [compose_or_explain(config_dir, config_name, job) for job in (first, *others)]
    return Composed(composed[0].cfg, list(dict.fromkeys(fault for job in composed for fault in job.faults)))


def _loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def _parse(override: str) -> Override:
    return OverridesParser.create(config_loader=_loader()).parse_overrides([override])[0]


def _sweep_values(override: str) -> list[str]:
    """Empty for a range without steps, which only an optimizing sweeper can draw from."""
    try:
        parsed = _parse(override)
    except OverrideParseException:
        return [override]
    if not parsed.is_sweep_override():
        return [override]
    key = parsed.get_key_element()
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()] if parsed.is_discrete_sweep() else []


def _attempt(config_name: str, overrides: Sequence[str]) -> DictConfig | Exception:
    try:
        cfg = compose(config_name, list(overrides), return_hydra_config=True)
    except (HydraException, ValueError) as error:  # ValueError: a number where a group's choice belongs
        return error
    # Hydra skips a choice that does not exist where the defaults list calls its group optional.
    for override in map(_parse, overrides):
        choice, options = override.value(), _loader().get_group_options(override.key_or_group)
        if options and isinstance(choice, str) and "/" not in choice and choice not in options:
            return HydraException(f"{override.key_or_group} has no {choice}")
    return cfg


def _one_by_one(config_name: str, overrides: Sequence[str], error: Exception) -> Composed:
    faults: list[Fault] = []
    parsed: list[Override] = []
    for override in overrides:
        try:
            parsed.append(_parse(override))
        except OverrideParseException as unreadable:
            faults.append(malformed(override, unreadable))
    certain = not faults
    lost_groups: list[str] = []
    accepted: list[str] = []
    cfg = compose(config_name, return_hydra_config=True)
    for override in sorted(parsed, key=lambda o: not _loader().get_group_options(o.key_or_group)):  # as Hydra does
        key = override.key_or_group
        if any(key.startswith(f"{group}.") for group in lost_groups):
            continue  # whether there is such a key depends on a choice that is not known
        taken = {other.key_or_group for other in parsed if other is not override}
        new_cfg = _accept(config_name, accepted, override, cfg, taken, faults)
        if new_cfg is not None:
            cfg = new_cfg
        elif _loader().get_group_options(key):
            lost_groups.append(key)
    certain = certain and not lost_groups
    return Composed(cfg if certain else None, faults or [Fault("overrides", " ".join(overrides), str(error))])


def _accept(
    config_name: str, accepted: list[str], override: Override, cfg: DictConfig, taken: set[str], faults: list[Fault]
) -> DictConfig | None:
    """The config with the override, or with the guess at it; appends what was accepted and what was wrong."""
    for _ in range(_GUESSES):
        assert override.input_line is not None
        outcome = _attempt(config_name, [*accepted, override.input_line])
        if isinstance(outcome, DictConfig):
            accepted.append(override.input_line)
            return outcome
        fault, guess = explain(override, cfg, _loader(), outcome)
        faults.append(fault)
        if guess is None or (override := _parse(guess)).key_or_group in taken:
            break
    return None
