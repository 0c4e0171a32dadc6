"""Explains an override that Hydra cannot apply, and guesses the nearest valid one."""

import difflib
import re
from collections.abc import Iterator
from contextlib import suppress

from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from project.command_line.other_names import INSTEAD, RENAMED
from project.spec.fault import Fault, legal, nearest, said

Explained = tuple[Fault, str | None]
"""The fault, and the nearest valid override if there is one."""

_PARSER_EXCEPTION = re.compile(r"^\w*Exception: .*")  # names a class of the parser, and repeats the override


def malformed(override: str, error: OverrideParseException) -> Fault:
    """The fault of an override that Hydra's grammar cannot parse."""
    key, equals, value = override.partition("=")
    if not equals:
        return Fault(key, "", "is not of the form key=value")
    if key != key.strip():
        meant = value.strip() if " " not in value.strip() else f"'{value.strip()}'"
        return Fault(key, value, f"has a space before its equals sign; write {key.strip()}={meant}")
    reason = _PARSER_EXCEPTION.sub("", error.message.splitlines()[0])
    why = f"cannot be read ({reason})" if reason else "cannot be read"
    return Fault(key, value, f"{why}; quote what is no plain word, as in {key}='\"a value\"'")


def explain(override: Override, cfg: DictConfig, loader: ConfigLoader, error: Exception) -> Explained:
    """Explains why the override does not apply to `cfg`, a configuration with Hydra's own section. `error` is what
    Hydra raised."""
    key = override.key_or_group
    options = loader.get_group_options(key)
    if override.is_sweep_override():
        return _sweep_without_multirun(override)
    if options:
        return _choice(override, options, key in cfg.hydra.runtime.choices, error)
    exists = key in keys_of(cfg)
    if exists and override.is_add():
        return _fault(override, f"exists already; write it without a plus, {_bare(override)}"), _bare(override)
    if not exists and not override.is_add() and not override.is_force_add():
        return _unknown_key(override, cfg, loader)
    if override.is_delete() and isinstance(error.__cause__ or error, InterpolationResolutionError):
        return _fault(override, _filled_in(key, cfg)), None
    return _fault(override, _first_line(error)), None


def _filled_in(key: str, cfg: DictConfig) -> str:
    """The fault of removing a key that Hydra would have to resolve first."""
    section, _, leaf = key.rpartition(".")
    node = OmegaConf.select(cfg, section) if section else cfg
    raw = OmegaConf.to_container(node, resolve=False)[leaf]  # type: ignore[index, call-overload]
    return f"cannot be removed, for its value {raw} is filled in when the run starts; leave it, or set it: {key}=..."


def _choice(override: Override, options: list[str], in_defaults: bool, error: Exception) -> Explained:
    value, bare = override.value(), _bare(override)
    several = isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
    if not several and said(value) not in options and not override.is_delete():
        near = nearest(value, options) if value not in ("", None) and not isinstance(value, list | dict) else []
        guess = f"{_prefix(override)}{override.key_or_group}={near[0]}" if near else None
        return _fault(override, f"there is no such choice; {legal(value, options)}"), guess
    if in_defaults and override.is_add():
        return _fault(override, f"replaces a choice; write it without a plus, {bare}"), bare
    if not in_defaults and not override.is_add():
        return _fault(override, f"adds a choice; write it with a plus, +{bare}"), f"+{bare}"
    return _fault(override, _first_line(error)), None


def _sweep_without_multirun(override: Override) -> Explained:
    first = next(iter(override.sweep_string_iterator())) if override.is_discrete_sweep() else None
    guess = f"{override.get_key_element()}={first}" if first is not None else None
    return _fault(override, "several values make a sweep, which needs -m; a list is written [a,b]"), guess


def _unknown_key(override: Override, cfg: DictConfig, loader: ConfigLoader) -> Explained:
    key = override.key_or_group
    known = [name for name in keys_of(cfg) if key.startswith("hydra") or not name.startswith("hydra")]
    if key in INSTEAD:
        return _fault(override, f"there is no such key: {INSTEAD[key]}"), None
    groups = loader.get_group_options("", results_filter=None)  # also those without a default
    meant = _renamed(key, cfg) or _meant_key(key, list(dict.fromkeys([*known, *groups])))
    if meant is not None:
        equals = (override.input_line or "").partition("=")[1]
        guess = f"{_prefix(override)}{meant}{equals}{_value(override)}"
        return _fault(override, f"there is no such key; nearest {meant}"), guess
    section = key.rpartition(".")[0]
    names = sorted(_last(name) for name in known if name.rpartition(".")[0] == section and _last(name)[0] != "_")
    within = f"; {section or 'the config'} has {', '.join(names)}" if names else ""
    other = _choice_with_key(key, section, loader)
    return _fault(override, f"there is no such key{f', but {other} has it' if other else within}"), None


def _renamed(key: str, cfg: DictConfig) -> str | None:
    """The key here of one that has another name elsewhere."""
    meant = RENAMED.get(_last(key))
    return meant if meant in keys_of(cfg) else None


def _meant_key(key: str, known: list[str]) -> str | None:
    """The key with the same last part (`parallel.tp` for `tp`), or else the one with the most similar spelling."""
    section, _, leaf = key.rpartition(".")
    elsewhere = [name for name in known if _last(name) == leaf]
    siblings = {_last(name): name for name in known if name.rpartition(".")[0] == section}
    if elsewhere:
        return difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.0)[0]
    if siblings:
        return next((siblings[name] for name in difflib.get_close_matches(leaf, siblings, n=1)), None)
    return next(iter(difflib.get_close_matches(key, known, n=1)), None)


def _choice_with_key(key: str, section: str, loader: ConfigLoader) -> str | None:
    """The choice of the section's group under which the key exists, as `data.files` does under `data=text` alone."""
    for option in loader.get_group_options(section) if section else ():
        with suppress(HydraException):  # some of Hydra's own choices cannot be composed alone
            if key in keys_of(compose(overrides=[f"+{section}={option}"])):
                return f"{section}={option}"
    return None


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def keys_of(cfg: DictConfig) -> list[str]:
    """The keys of all levels, with dots."""

    def below(node: object, prefix: str) -> Iterator[str]:
        for name, child in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{name}"
            yield from below(child, f"{prefix}{name}.")

    return list(below(OmegaConf.to_container(cfg), ""))


def _prefix(override: Override) -> str:
    return "++" if override.is_force_add() else "+" if override.is_add() else "~" if override.is_delete() else ""


def _value(override: Override) -> str:
    return (override.input_line or "").partition("=")[2]


def _bare(override: Override) -> str:
    return f"{override.key_or_group}={_value(override)}"


def _fault(override: Override, message: str) -> Fault:
    return Fault(f"{_prefix(override)}{override.key_or_group}", _value(override), message)


def _first_line(error: Exception) -> str:
    return str(error.__cause__ or error).strip().splitlines()[0]
