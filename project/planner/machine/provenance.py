"""Where a number is from. One rule, for all that a plan says.

- *measured*: a figure of the cluster that was read off the machine, and stands as it was read (`Cluster.measured`).
- *derived*: the configuration's, or arithmetic on it and on what was measured.
- *assumed*: rests on at least one figure that nobody measured there: a rate from a data sheet or fitted to other
  people's runs, a guess, or that tokens are routed at random.

A number is as good as the weakest thing that it is made of. So what is predicted is never measured: from measured rates
it is derived, and from any other assumed.
"""

from __future__ import annotations

from project.planner.machine.cluster import Cluster
from project.spec.layout import ParallelLayout
from project.spec.peaks import Arithmetic

SOURCES = ("assumed", "derived", "measured")
"""The weakest first."""


def weakest(*sources: str) -> str:
    return min(sources, key=SOURCES.index)


def read(cluster: Cluster, *figures: str) -> str:
    """Of figures as they stand in the cluster's file: `gpus_per_node`, `peak_flops.half`."""
    known = all(figure in cluster.measured or figure.partition(".")[0] in cluster.measured for figure in figures)
    return "measured" if known else "assumed"


def computed(cluster: Cluster, *figures: str) -> str:
    """Of what arithmetic makes of the configuration and such figures."""
    return weakest("derived", read(cluster, *figures))


def of_seconds(cluster: Cluster, layout: ParallelLayout, arithmetic: Arithmetic) -> str:
    """Of every time that is predicted, by the rates that go into it. How smaller tiles do is the kind of device's; what
    products reach beside that is `achieved`."""
    rates = [f"peak_flops.{arithmetic}", "achieved"]
    if cluster.host is not None:
        return computed(cluster, *rates, "host", "intra")
    rates += ["multiprocessors", "memory_bandwidth", "launch_s"]
    if layout.world_size > 1:
        rates += ["intra", "gpus_per_node"]
    if layout.world_size > cluster.gpus_per_node:
        rates.append("inter")
    return computed(cluster, *rates)
