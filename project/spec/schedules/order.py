"""The order of every pipeline rank's actions, as `torch.distributed.pipelining` (2.13) executes them. The tests hold it
to torch's own lists and to what ranks have executed.

torch's own list for 1F1B is not what it runs: `Schedule1F1B._get_pipeline_order` numbers the last rank's forwards from
1.
"""

from project.spec.layout import ParallelLayout
from project.spec.schedules.action import Action
from project.spec.schedules.table import schedule_of

Order = list[list[Action]]
"""By pipeline rank."""


def order_of(layout: ParallelLayout) -> Order:
    """Actions that overlap come one after the other, as the runtime runs them."""
    schedule = schedule_of(layout)
    holders = schedule.placement(layout)
    stages = [[stage for stage, holder in enumerate(holders) if holder == rank] for rank in range(layout.pp)]
    return [schedule.order(rank, stages[rank], layout) for rank in range(layout.pp)]


def forwards(order: Order) -> Order:
    """The same lists without the backwards: a batch's forward alone."""
    return [[action for action in row if action.kind == "F"] for row in order]
