"""`project/plan.py` as a record: derives the strategy document of a layout."""

from project.command_line.command import Command
from project.commands.plan import checks

PLAN = Command(
    name="plan",
    faults=checks.faults,
    warnings=checks.warnings,
    purpose="Derives the strategy document of a layout, and checks its claims.",
    example="+experiment=tp4_ep4_pp4 cluster=h100_2x8",
    groups=("model", "parallel", "experiment", "data", "trainer", "cluster"),
    paths=("compare", "document"),
)
