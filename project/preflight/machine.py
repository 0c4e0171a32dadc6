"""Faults and warnings of what a configuration asks of the machine: ranks, GPUs, half precision, folders to write to."""

import re
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from project.preflight.gpus import Hardware, gpu_set_faults, hidden, why_none
from project.spec.disk import space_left
from project.spec.fault import Fault, legal, said
from project.spec.layout import ParallelLayout
from project.spec.legality.layouts import legal_layouts
from project.spec.model import ModelConfig
from project.spec.precision import settled

LEAST_SPACE = 1 << 16  # bytes: configuration, log and summary of a run take as much
PAGE = 4096
_NAMED = 4  # layouts in a message
_INSTRUCTIONS = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
# Measured on one core without them, products of 512 x 512: bf16 0.4 GFLOP/s against 60 to 75 in fp32; fp16 2.3
# against 56 where AVX-512 helps with the conversion, and as bf16 where it does not.
_HOW_SLOW = {"bf16": "about two hundred times", "16": "25 to two hundred times"}


@dataclass(frozen=True)
class Surroundings:
    """The facts outside of the configuration that a check depends on.

    `gpus` counts the GPUs of this machine; it is called only where the accelerator may be a GPU, for counting imports
    torch. `memory` returns the bytes that ranks on its processors share. `run_folder` is None where it need not be
    checked.
    """

    environ: Mapping[str, str]
    gpus: Callable[[], int]
    hardware: Hardware
    run_folder: Path | None = None
    memory: Callable[[], float] = field(default=lambda: machine_memory())


def machine_memory(info: Path = Path("/proc/meminfo"), limit: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """Bytes of memory and swap that this machine, or the container that this process runs in, has; infinite where that
    is not known."""
    if not info.exists():
        return float("inf")
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", info.read_text(encoding="utf-8"), re.MULTILINE))
    here = 1024 * (int(found.get("MemTotal", 0)) + int(found.get("SwapTotal", 0)))
    allowed = limit.read_text(encoding="utf-8").strip() if limit.exists() else "max"
    return min(here or float("inf"), int(allowed) if allowed.isdigit() else float("inf"))


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


def shared_memory_faults(data: Mapping[str, Any], ranks: int, shared: Path = Path("/dev/shm")) -> Iterator[Fault]:
    """The fault of loader processes whose batches have no room in shared memory, by which they hand them over; for
    data without other faults, of `ranks` on this machine."""
    workers = data.get("num_workers", 0)
    if not workers or not shared.is_dir():
        return
    batch = 2 * (data["batch_size"] * data["seq_len"] * 8 + PAGE)  # tokens and targets
    needed = (1 << 20) + ranks * workers * 2 * batch  # two batches ahead each
    there = shutil.disk_usage(shared).free
    if needed > there:
        message = (
            f"{ranks} ranks' loaders need {needed / 1e6:,.1f} MB of shared memory for their batches, and {shared} has "
            f"{there / 1e6:,.1f} MB; nearest 0, or more of it (docker run --shm-size)"
        )
        yield Fault("data.num_workers", workers, message)


def folder_faults(key: str, folder: Path | None) -> Iterator[Fault]:
    """Faults of a folder that cannot be written; none without a folder.

    Tries to write into the folder, or into the nearest parent that exists, and leaves nothing behind: permissions do
    not show that a file system is read-only or full, and root has them all.
    """
    if folder is None:
        return
    existing = folder.expanduser().absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield Fault(key, folder, f"cannot be created, because {existing} is a file; name another folder")
        return
    try:
        with tempfile.TemporaryDirectory(dir=existing) as tried:
            (Path(tried) / "file").write_bytes(bytes(LEAST_SPACE))
    except OSError as error:
        reason = f"cannot be written ({existing}: {error.strerror}{space_left(existing)}); name another folder"
        yield Fault(key, folder, reason)


def with_precision(config: Mapping[str, Any], around: Surroundings) -> dict[str, Any]:
    """The configuration with the precision that `auto` stands for on this machine."""
    trainer = config["trainer"]
    if trainer["precision"] != "auto":
        return dict(config)
    return {**config, "trainer": {**trainer, "precision": settled("auto", _on_gpus(trainer["accelerator"], around))}}


def _on_gpus(accelerator: str, around: Surroundings) -> bool:
    return accelerator in ("cuda", "gpu") or (accelerator == "auto" and around.gpus() > 0)


def machine_warnings(trainer: Mapping[str, Any], layout: ParallelLayout, around: Surroundings) -> list[str]:
    """What makes a run slow on this machine: on a processor half precision without instructions for it, or a GPU that
    is left idle; on GPUs a precision without a quick grouped product, or groups of ranks that span nodes."""
    accelerator, precision = trainer["accelerator"], str(trainer["precision"])
    if not _on_gpus(accelerator, around):
        idle = accelerator == "auto" and around.hardware.has_gpu
        why = why_none(around.hardware, around.environ) if idle else ""
        unused = [f"trainer.accelerator=auto: the ranks run on the processor, for {why}"] if idle else []
        return [*unused, *half_precision_warnings(precision)]
    return [*_grouped_product_warnings(precision), *_spanning_warnings(layout, trainer["num_nodes"])]


def _grouped_product_warnings(precision: str) -> list[str]:
    if precision.startswith("bf16"):
        return []
    return [
        f"trainer.precision={precision}: on a GPU torch's grouped product of the experts is quick in bf16 alone (on "
        "Hopper and Blackwell); in this precision each call waits for the host; trainer.precision=bf16-mixed is quick"
    ]


def _spanning_warnings(layout: ParallelLayout, nodes: int) -> list[str]:
    """A warning for each axis inside a stage whose groups do not lie within one node each."""
    on_a_node = layout.world_size // nodes
    return [
        f"parallel.{name}={degree}: its groups span nodes of {on_a_node} ranks each, whose links are many times slower "
        "than those within one"
        for name in ("tp", "ep", "etp")
        if (degree := getattr(layout, name)) > 1 and nodes > 1 and on_a_node % (layout.stride(name) * degree)
    ]


def half_precision_warnings(precision: str, cpu_info: Path = Path("/proc/cpuinfo")) -> list[str]:
    """None where `cpu_info` does not list the CPU's instructions."""
    kind = precision.partition("-")[0]
    if kind not in _INSTRUCTIONS or not cpu_info.exists():
        return []
    # x86 says "flags", ARM says "Features".
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpu_info.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None or _INSTRUCTIONS[kind] & set(found[1].split()):
        return []
    name = "bf16" if kind == "bf16" else "fp16"
    return [
        f"trainer.precision={precision}: this CPU has no {name} instructions, so that matrix products run "
        f"{_HOW_SLOW[kind]} slower than in fp32; trainer.precision=32-true is the quick one"
    ]


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
