"""What is wrong with the file of claims that `document` names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from project.planner.document.claims import claim_faults
from project.planner.document.derive import derive
from project.planner.machine.cluster_file import read_cluster
from project.planner.run import claims_path, step_of
from project.spec.fault import Fault


def document_faults(config: Any) -> Iterator[Fault]:
    """For a configuration whose layout and cluster are sound: what may be claimed are the quantities of its plan."""
    if config.get("document"):
        known = derive(step_of(config), read_cluster(config["cluster"])).quantities
        yield from claim_faults("document", claims_path(str(config["document"])), known)
