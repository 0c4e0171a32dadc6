"""The source of a number, by one rule for everything that a plan says.

- *measured*: a figure of the cluster that was read off the machine and is given as it was read (`Cluster.measured`).
- *derived*: the configuration, or arithmetic on the configuration and on measured figures.
- *assumed*: rests on at least one figure that nobody measured on this machine: a rate from a data sheet or fitted to
  published runs, a guess, or the assumption that tokens are routed at random.

A number has the weakest source of everything that it is computed from. A prediction is therefore never measured: it is
derived if all its rates were measured, and assumed otherwise.
"""

from project.planner.machine.cluster import Cluster
from project.spec.layout import ParallelLayout
from project.spec.precision import Arithmetic

SOURCES = ("assumed", "derived", "measured")
"""From the weakest to the strongest."""


def weakest(*sources: str) -> str:
    return min(sources, key=SOURCES.index)


def source_of_figures(cluster: Cluster, *figures: str) -> str:
    """Source of figures as they stand in the cluster's file, for example `gpus_per_node` or `peak_flops.half`."""
    known = all(figure in cluster.measured or figure.partition(".")[0] in cluster.measured for figure in figures)
    return "measured" if known else "assumed"


def source_of_results(cluster: Cluster, *figures: str) -> str:
    """Source of a result that is computed from the configuration and from such figures."""
    return weakest("derived", source_of_figures(cluster, *figures))


def source_of_seconds(cluster: Cluster, layout: ParallelLayout, arithmetic: Arithmetic) -> str:
    """Source of every predicted time, by the rates that it depends on. The efficiency of smaller tiles does not count:
    it belongs to the kind of device, and `achieved` is what products reach beside it."""
    rates = [f"peak_flops.{arithmetic}", "achieved"]
    if cluster.host is not None:
        return source_of_results(cluster, *rates, "host", "intra")
    rates += ["multiprocessors", "memory_bandwidth", "launch_s"]
    if layout.world_size > 1:
        rates += ["intra", "gpus_per_node"]
    if layout.world_size > cluster.gpus_per_node:
        rates.append("inter")
    return source_of_results(cluster, *rates)
