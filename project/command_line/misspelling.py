"""Why Hydra could not apply an override, and what it was most likely meant to be."""

from __future__ import annotations

import difflib

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from project.fault import Fault
from project.legal_values import legal, nearest, said

Explained = tuple[Fault, str | None]
"""The fault, and the override that was probably meant."""


def malformed(override: str, error: OverrideParseException) -> Fault:
    key, equals, value = override.partition("=")
    if not equals:
        return Fault(key, "", "is not of the form key=value")
    reason = error.message.splitlines()[0]
    return Fault(key, value, f"cannot be read ({reason}); quote what is no plain word, as in {key}='\"a value\"'")


def explain(override: Override, cfg: DictConfig, loader: ConfigLoader, error: Exception) -> Explained:
    """`cfg` is the config, Hydra's part included, to which the override could not be applied."""
    key = override.key_or_group
    options = loader.get_group_options(key)
    if override.is_sweep_override():
        return _sweep_without_multirun(override)
    if options:
        return _choice(override, options, key in cfg.hydra.runtime.choices, error)
    exists = key in _keys(cfg)
    if exists and override.is_add():
        return _fault(override, f"exists already; write it without the plus sign, {_bare(override)}"), _bare(override)
    if not exists and not override.is_add() and not override.is_force_add():
        return _unknown_key(override, cfg, loader)
    return _fault(override, _first_line(error)), None


def _choice(override: Override, options: list[str], in_defaults: bool, error: Exception) -> Explained:
    value = override.value()
    if not isinstance(value, list) and value is not None and said(value) not in options:
        near = nearest(value, options) if said(value) else []
        prefix = _prefix(override)
        guess = f"{prefix}{override.key_or_group}={near[0]}" if near else None
        return _fault(override, f"there is no such choice; {legal(value, options)}"), guess
    if in_defaults and override.is_add():
        return _fault(override, f"replaces a choice; write it without the plus sign, {_bare(override)}"), _bare(override)
    if not in_defaults and not override.is_add():
        return _fault(override, f"adds a choice; write it with a plus sign, +{_bare(override)}"), f"+{_bare(override)}"
    return _fault(override, _first_line(error)), None


def _sweep_without_multirun(override: Override) -> Explained:
    first = next(iter(override.sweep_string_iterator())) if override.is_discrete_sweep() else None
    guess = f"{override.get_key_element()}={first}" if first is not None else None
    return _fault(override, "several values make a sweep, which needs -m; a list is written [a,b]"), guess


def _unknown_key(override: Override, cfg: DictConfig, loader: ConfigLoader) -> Explained:
    key = override.key_or_group
    known = [name for name in _keys(cfg) if key.startswith("hydra") or not name.startswith("hydra")]
    groups = loader.get_group_options("", results_filter=None)  # folders, some of which no default names
    meant = _meant_key(key, list(dict.fromkeys([*known, *groups])))
    if meant is not None:
        value = f"={override.get_value_element_as_str()}" if override.value() is not None or not override.is_delete() else ""
        return _fault(override, f"there is no such key; nearest {meant}"), f"{_prefix(override)}{meant}{value}"
    section = key.rpartition(".")[0]
    names = sorted(name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == section)
    within = f"{section} has" if section else "there are"
    return _fault(override, f"there is no such key; {within} {', '.join(names)}" if names else "there is no such key"), None


def _meant_key(key: str, known: list[str]) -> str | None:
    """A key of the same last name elsewhere (`tp` for `parallel.tp`), or else the one that is spelled most like it."""
    leaf = key.rpartition(".")[2]
    elsewhere = [name for name in known if name.rpartition(".")[2] == leaf]
    alike = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.0) or difflib.get_close_matches(key, known, n=1)
    return alike[0] if alike else None


def _keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in cfg:
        keys.append(f"{prefix}{name}")
        node = cfg._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation() and not node._is_missing():
            keys += _keys(node, f"{prefix}{name}.")
    return keys


def _prefix(override: Override) -> str:
    return "++" if override.is_force_add() else "+" if override.is_add() else "~" if override.is_delete() else ""


def _bare(override: Override) -> str:
    return f"{override.key_or_group}={override.get_value_element_as_str()}"


def _fault(override: Override, message: str) -> Fault:
    value = "" if override.is_delete() and override.value() is None else override.get_value_element_as_str()
    return Fault(f"{_prefix(override)}{override.key_or_group}", value, message)


def _first_line(error: Exception) -> str:
    return str(error.__cause__ or error).strip().splitlines()[0]
