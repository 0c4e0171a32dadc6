"""Faults of the file of claims that `document` names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from project.planner.config import claims_path, cluster_of, step_of
from project.planner.document.claims import claim_faults
from project.planner.document.derived import derive
from project.planner.document.quantities import quantities
from project.spec.fault import Fault


def document_faults(config: Any) -> Iterator[Fault]:
    """For a configuration whose layout and cluster have no faults: a claim names a quantity of its plan."""
    if config.get("document"):
        known = quantities(derive(step_of(config), cluster_of(config)))
        yield from claim_faults("document", claims_path(str(config["document"])), known)
