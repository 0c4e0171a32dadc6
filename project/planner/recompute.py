"""`parallel.recompute=auto` stands for the least that has to be computed again, by the plan's memory."""

from dataclasses import replace

from project.planner.machine.cluster import Cluster
from project.planner.memory.peak import peak
from project.planner.step import Step
from project.spec.layout import RECOMPUTE


def with_least_recomputation(step: Step, cluster: Cluster) -> Step:
    """The step with the first of `none`, `selective` and `full` under which its largest rank fits into a device of the
    cluster; with `full` where it fits under none. One cluster gives one answer, on whatever machine a rank runs: ranks
    of a group that recompute differently would wait for one another."""
    room, reserved = cluster.memory_per_rank(step.layout.world_size), int(cluster.reserved_bytes)
    some = [replace(step, layout=replace(step.layout, recompute=recompute)) for recompute in RECOMPUTE]
    return next((one for one in some if peak(one, reserved) <= room), some[-1])
