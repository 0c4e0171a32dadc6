"""Which link a transfer of a step uses, and how long one of its calls takes."""

from __future__ import annotations

from project.planner.cost import collective_time, message
from project.planner.cost.transfer import Transfer
from project.planner.machine.cluster import Cluster
from project.planner.step import Step


def link(transfer: Transfer, step: Step, cluster: Cluster) -> str:
    """ "intra" or "inter": of the links that it uses the slowest."""
    if (ends := _ends(transfer, step)) is not None:
        return message.tier(*ends, step.layout, cluster)
    return collective_time.tier(transfer.group, cluster)


def seconds(transfer: Transfer, step: Step, cluster: Cluster) -> float:
    """Of one call. A message takes its time once, where it is sent."""
    if transfer.collective == "recv":
        return 0.0
    if (ends := _ends(transfer, step)) is not None:
        return message.seconds(transfer.given, *ends, step.layout, cluster)
    return collective_time.seconds(transfer.collective, transfer.given, transfer.group, cluster)


def _ends(transfer: Transfer, step: Step) -> tuple[int, int] | None:
    """The pipeline ranks that a message is between."""
    if transfer.stage is None or transfer.neighbour is None:
        return None
    return step.rank_of_stage[transfer.stage], step.rank_of_stage[transfer.neighbour]
