"""Faults of the number of ranks: against the GPUs of this machine, the nodes, the launcher, and the open files."""

import resource
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from project.preflight.gpus import gpu_set_faults, hidden, why_none
from project.preflight.machine import Surroundings
from project.spec.fault import Fault, legal, said
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import legal_layouts
from project.spec.model import ModelConfig

_NAMED = 4  # layouts in a message
LAUNCHER_NUMBERS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_NNODES"),
)
LAST_PORT = 65535


def rank_faults(
    trainer: Mapping[str, Any],
    layout: ParallelLayout,
    model: ModelConfig,
    batch: tuple[int, int],
    around: Surroundings,
) -> Iterator[Fault]:
    """Faults of the number of ranks: more than there are GPUs, or another number than a launcher has started.

    `batch` is sequences a step and tokens a sequence. Yields none where the degrees are no numbers.
    """
    if not all(type(degree) is int and degree > 0 for degree in (layout.pp, layout.dp, layout.tp)):
        return
    if found := list(_launcher_faults(around.environ)):
        yield from found
        return
    named = lambda ranks: _named_layouts(layout, model, batch, ranks)  # noqa: E731
    yield from _gpu_faults(trainer, layout, named, around)
    yield from _node_faults(trainer.get("num_nodes", 1), layout, around.environ)
    launched = _launched_ranks(around.environ)
    if launched is None:
        yield from _open_file_faults(layout.world_size, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    if launched is not None and launched[1] != layout.world_size:
        variable, ranks = launched
        command = "torchrun" if variable == "WORLD_SIZE" else "srun"
        message = (
            f"needs parallel.pp x parallel.dp x parallel.tp = {layout.world_size} ranks, but {command} started {ranks} "
            f"({variable}={ranks}); start {layout.world_size}, or use {named(ranks)}"
        )
        yield Fault("parallel", f"pp{layout.pp}_dp{layout.dp}_tp{layout.tp}", message)


def _gpu_faults(
    trainer: Mapping[str, Any], layout: ParallelLayout, named: Callable[[int], str], around: Surroundings
) -> Iterator[Fault]:
    """Faults of a layout with more ranks than GPUs. The accelerator `auto` means the GPUs where there are any; `named`
    names legal layouts for a number of ranks."""
    accelerator = trainer["accelerator"]
    if accelerator not in ("auto", "cuda", "gpu"):
        return
    here = around.gpus()
    if here == 0:
        if accelerator != "auto":
            yield Fault("trainer.accelerator", accelerator, why_none(around.hardware, around.environ))
        return
    present = here * _nodes(trainer.get("num_nodes", 1), around.environ)
    if layout.world_size > present:
        message = (
            f"{layout.world_size} ranks (parallel.pp x parallel.dp x parallel.tp) need as many GPUs, but {present} "
            f"{'is' if present == 1 else 'are'} present{hidden(around.hardware, around.environ)}; use "
            f"{named(present)}; or trainer.accelerator=cpu"
        )
        yield Fault("trainer.accelerator", accelerator, message)
        return
    launched = _launched_ranks(around.environ) is not None
    ranks_here = min(layout.world_size, here)
    yield from gpu_set_faults(accelerator, ranks_here, launched, around.hardware, around.environ)


def _node_faults(nodes: object, layout: ParallelLayout, environ: Mapping[str, str]) -> Iterator[Fault]:
    """Faults of a number of nodes that the ranks do not divide over, or that nobody has started."""
    if type(nodes) is not int or nodes < 2:
        return
    ranks = layout.world_size
    if ranks % nodes:
        legal_here = [count for count in range(1, ranks + 1) if ranks % count == 0]
        yield Fault(
            "trainer.num_nodes", nodes, f"does not divide the layout's {ranks} ranks; {legal(nodes, legal_here)}"
        )
    elif _launched_ranks(environ) is None and not {"NODE_RANK", "GROUP_RANK"} & environ.keys():
        message = (
            "but this process starts ranks on its own machine alone, and would wait for the others for ever; start it "
            "on each node by torchrun or srun, or with NODE_RANK, MASTER_ADDR and MASTER_PORT set; here nearest 1"
        )
        yield Fault("trainer.num_nodes", nodes, message)
    elif _launched_ranks(environ) is not None and (started := _nodes(nodes, environ)) != nodes:
        yield Fault("trainer.num_nodes", nodes, f"but the launcher has started {started}; nearest {started}")


def _launcher_faults(environ: Mapping[str, str]) -> Iterator[Fault]:
    """The faults of a launcher's variables that are no numbers, and of a rank's number that no launcher has given: this
    process would train without a run folder, as one that another leads."""
    for variable in LAUNCHER_NUMBERS:
        value = environ.get(variable)
        if value is not None and not (value.isascii() and value.isdecimal()):
            yield Fault(variable, value, "must be a whole number, 0 or more, as a launcher sets it; or unset it")
        elif variable == "MASTER_PORT" and value is not None and int(value) > LAST_PORT:
            yield Fault(variable, value, f"must be a port, at most {LAST_PORT}; or unset it, and a free one is taken")
    variable = "RANK" if "RANK" in environ else "SLURM_PROCID"
    rank = environ.get(variable, "0")
    if (
        rank != "0"
        and _launched_ranks(environ) is None
        and not {"LOCAL_RANK", "NODE_RANK", "GROUP_RANK"} & environ.keys()
    ):
        yield Fault(variable, rank, "is left over from somewhere: no launcher has started this process; unset it")


def _open_file_faults(ranks: int, allowed: int) -> Iterator[Fault]:
    """The fault of a limit of open files that the pipes to the ranks, and their connections, would go beyond."""
    needed = 32 + 4 * ranks
    if resource.RLIM_INFINITY != allowed < needed:
        message = f"{ranks} ranks need some {needed} open files, but `ulimit -n` allows {allowed}; raise it"
        yield Fault("parallel", f"{ranks} ranks", message)


def _nodes(asked: object, environ: Mapping[str, str]) -> int:
    """The number of nodes by the launcher's variables, or else by `trainer.num_nodes`."""
    launched = _launched_ranks(environ)
    if launched is None:
        return asked if isinstance(asked, int) and asked > 0 else 1
    variable, ranks = launched
    if variable == "WORLD_SIZE":
        return max(ranks // max(int(environ.get("LOCAL_WORLD_SIZE", ranks)), 1), 1)
    return int(environ.get("SLURM_NNODES", "1"))


def _launched_ranks(environ: Mapping[str, str]) -> tuple[str, int] | None:
    """The launcher's variable and the number of ranks in it; None where this process starts the ranks itself."""
    if "TORCHELASTIC_RUN_ID" in environ and environ.get("WORLD_SIZE", "").isdigit():
        return "WORLD_SIZE", int(environ["WORLD_SIZE"])
    # An interactive shell inside an allocation has the variables too, but nothing was launched; as Lightning sees it.
    interactive = environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if environ.get("SLURM_NTASKS", "").isdigit() and not interactive:
        return "SLURM_NTASKS", int(environ["SLURM_NTASKS"])
    return None


def _named_layouts(layout: ParallelLayout, model: ModelConfig, batch: tuple[int, int], ranks: int) -> str:
    """Legal layouts as overrides, for that many ranks or, where none is legal, for the next smaller number."""
    if any(type(size) is not int or size < 1 for size in batch):
        return "fewer"
    for world_size in range(ranks, 0, -1):
        layouts = legal_layouts(model, world_size, *batch, like=layout)
        if layouts:
            by_shape: dict[tuple[int, int, int], ParallelLayout] = {}
            for found in layouts:  # the best way of placing the experts comes first
                by_shape.setdefault((found.pp, found.dp, found.tp), found)
            named = [_overrides(found, like=layout) for found in list(by_shape.values())[:_NAMED]]
            return f"one that is legal for {world_size}: {', or '.join(named)}"
    return "another model: none is legal for this one"


def _overrides(layout: ParallelLayout, like: ParallelLayout) -> str:
    """The layout as overrides, without degrees of 1 and without keys that are as in `like`."""
    always = ("pp", "tp", "ep")
    names = [name for name in ("pp", "dp", "tp", "ep", "etp") if name in always or getattr(layout, name) > 1]
    names += [name for name in ("microbatches", "partition") if getattr(layout, name) != getattr(like, name)]
    return " ".join(f"parallel.{name}={said(getattr(layout, name))}" for name in names)
