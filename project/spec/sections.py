"""Layout and model from a configuration's sections `parallel` and `model`: the only place that builds them from one.

A section is a mapping, plain or OmegaConf's. Keys that begin with an underscore are Hydra's (`_target_`) and ignored:
run folders and checkpoints name classes there by modules that have moved since.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from project.spec.fault import Fault, legal, said
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

SECTIONS: dict[str, type] = {"parallel": ParallelLayout, "model": ModelConfig}


def layout_of(section: Mapping[str, Any]) -> ParallelLayout:
    """Values are taken as they are, of whatever type; `unknown_keys` reports the keys that are left out."""
    return ParallelLayout(**_known("parallel", section))


def model_of(section: Mapping[str, Any]) -> ModelConfig:
    """As `layout_of`."""
    return ModelConfig(**_known("model", section))


def unknown_keys(name: str, section: Mapping[str, Any], known: Sequence[str] | None = None) -> Iterator[Fault]:
    """One fault for each key that the section's record does not have. `known` are the keys of a section that is not
    in `SECTIONS`."""
    known = _fields(name) if known is None else known
    for key, value in section.items():
        if key not in known and not key.startswith("_"):
            yield Fault(f"{name}.{key}", said(value), f"is no key of {name}; {legal(key, known)}")


def without_hydra_keys(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section without `_target_`, `_partial_` and the like."""
    return {key: value for key, value in section.items() if not str(key).startswith("_")}


def _known(name: str, section: Mapping[str, Any]) -> dict[str, Any]:
    fields = _fields(name)
    return {key: _hashable(value) for key, value in section.items() if key in fields}


def _hashable(value: Any) -> Any:
    """A list as the tuple that a frozen record holds."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _fields(name: str) -> list[str]:
    return [field.name for field in dataclasses.fields(SECTIONS[name])]
