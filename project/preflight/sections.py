"""A section of the config against the class that it fills: keys that the class does not have."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from project.spec.fault import Fault
from project.spec.legal_values import legal, said

Section = TypeVar("Section")

_TRAINER = "lightning.pytorch.Trainer"


def filled(cls: type[Section], name: str, section: Mapping[str, Any]) -> tuple[Section, list[Fault]]:
    """The dataclass with the section's values as they are, types unchecked, and a fault for each key it lacks."""
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
    instance = cls(**{key: value for key, value in values.items() if key in known})
    return instance, list(_unknown(name, section, known))


def trainer_key_faults(section: Mapping[str, Any]) -> Iterator[Fault]:
    if section.get("_target_") == _TRAINER:
        yield from _unknown("trainer", section, _trainer_keys())


def _unknown(name: str, section: Mapping[str, Any], known: list[str]) -> Iterator[Fault]:
    for key, value in section.items():
        if key not in known and not key.startswith("_"):  # Hydra's own are _target_, _partial_ ...
            yield Fault(f"{name}.{key}", said(value), f"is no key of {name}; {legal(key, known)}")


def _trainer_keys() -> list[str]:
    """Read from the source, because importing Lightning takes seconds."""
    spec = importlib.util.find_spec("lightning")
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(next(iter(spec.submodule_search_locations))) / "pytorch" / "trainer" / "trainer.py"
    classes = [node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    methods = next(cls.body for cls in classes if cls.name == "Trainer")
    init = next(node for node in methods if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return [argument.arg for argument in (*init.args.args, *init.args.kwonlyargs) if argument.arg != "self"]
