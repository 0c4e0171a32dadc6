"""A run that does not start, and one that fails: what is printed, by which process, and how the process ends.

In a sweep (`-m`) Hydra's launcher catches an `Exception` of a job, goes on with the others, and raises it again after
the last one; a `SystemExit` would end the sweep. Exceptions of the kind raised here are printed by Hydra without a
traceback, and end with status 1.
"""

import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn, Self

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from project.spec.fault import Fault, plain

_FAULTY = 2


class InvalidConfig(CompactHydraException):
    """A job of a sweep has a faulty configuration; its faults have been reported."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(f"{', '.join(f'{fault.key}={fault.value}' for fault in faults)}: see the faults above")
        self.faults = list(faults)

    def __reduce__(self) -> tuple[type[Self], tuple[list[Fault]]]:
        """A launcher may send it from another process."""
        return type(self), (self.faults,)


class RunFailed(CompactHydraException):
    """A run failed; the message has the traceback of the rank that did."""


def refuse(faults: Sequence[Fault], environ: Mapping[str, str]) -> NoReturn:
    """Reports on one process of each machine, and exits with 2; in a job of a sweep, raises `InvalidConfig`."""
    if in_sweep():
        report_faults(faults, heading=f"Job {HydraConfig.get().job.num} was not started")
        raise InvalidConfig(faults)
    if speaks(environ):
        report_faults(faults)
    else:
        time.sleep(10)  # torchrun ends all processes at the first exit, and the process that reports is to finish first
    raise SystemExit(_FAULTY)


def failed(details: str) -> RunFailed:
    """The exception to raise. In a sweep `details` are printed here, for Hydra prints the exception of one job alone,
    after the last job."""
    if not in_sweep():
        return RunFailed(details)
    print(details, file=sys.stderr)
    return RunFailed(f"Job {HydraConfig.get().job.num} failed: see above")


def leads(environ: Mapping[str, str]) -> bool:
    """Whether this is the one process that writes the run's folder, of those that torchrun or SLURM started."""
    return environ.get("RANK", environ.get("SLURM_PROCID", "0")) == "0"


def speaks(environ: Mapping[str, str]) -> bool:
    """Whether this is the one process of its machine that prints."""
    return environ.get("LOCAL_RANK", environ.get("SLURM_LOCALID", "0")) == "0"


def shows_progress(cfg: DictConfig, environ: Mapping[str, str]) -> bool:
    """Whether this process says what it does while a run begins."""
    return speaks(environ) and bool(OmegaConf.select(cfg, "callbacks.progress"))


def in_sweep() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def report_faults(faults: Sequence[Fault], heading: str = "Nothing was started") -> None:
    lines = [str(fault) if fault.value != "" else f"{fault.key}: {fault.message}" for fault in faults]
    report_lines(lines, f"{heading}: the config has {counted(faults)}")


def report_lines(lines: Sequence[str], heading: str) -> None:
    _print([f"{heading}."], "bold red")
    _print(lines, None)


def counted(faults: Sequence[object]) -> str:
    return "1 fault" if len(faults) == 1 else f"{len(faults)} faults"


def report_warnings(warnings: Iterable[str]) -> None:
    _print([f"Warning: {warning}" for warning in warnings], "yellow")


def _print(paragraphs: Sequence[str], style: str | None) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    width = min(console.width, 100) - 2
    for paragraph in paragraphs:
        # Wrapped here, because rich would break a path in two, which could then not be copied.
        lines = textwrap.wrap(
            plain(paragraph), width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        indent = "" if style else "  "
        for line in lines:
            console.print(indent + line, style=style, markup=False, highlight=False, soft_wrap=True)
