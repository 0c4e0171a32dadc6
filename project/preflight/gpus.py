"""Faults of the machine's GPUs: why none can be used, or why they cannot be used together.

What there is says NVIDIA's driver (`nvidia-smi -q -x`), which needs no CUDA, and what torch can do says its build.
"""

import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from project.spec.fault import Fault

KEY = "trainer.accelerator"
ANSWERS_WITHIN_S = 30.0
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Card:
    index: int
    uuid: str
    name: str
    in_slices: bool = False
    """Whether it is split into MIG slices."""


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, the newest CUDA that it runs, and the GPUs that it has."""

    version: str
    cuda: str
    cards: tuple[Card, ...]


class Build(NamedTuple):
    """The installed torch: its version, the CUDA that it was built for, and whether it has NCCL."""

    version: str
    cuda: str | None
    nccl: bool


def ask_driver() -> Driver | None:
    """What the driver says; None where there is none, or it does not answer."""
    try:
        done = subprocess.run(["nvidia-smi", "-q", "-x"], capture_output=True, timeout=ANSWERS_WITHIN_S, check=True)
        return driver_of(done.stdout)
    except (OSError, subprocess.SubprocessError, ElementTree.ParseError):
        return None


def driver_of(report: bytes) -> Driver:
    """The driver of `nvidia-smi -q -x`'s report."""
    root = ElementTree.fromstring(report)
    text = lambda node, path: (node.findtext(path) or "").strip()  # noqa: E731
    cards = (
        Card(index, text(gpu, "uuid"), text(gpu, "product_name"), text(gpu, "mig_mode/current_mig") == "Enabled")
        for index, gpu in enumerate(root.iter("gpu"))
    )
    return Driver(text(root, "driver_version"), text(root, "cuda_version"), tuple(cards))


@dataclass(frozen=True)
class Hardware:
    """Where to ask about this machine's GPUs; each is asked only where its answer is needed."""

    build: Callable[[], Build]
    driver: Callable[[], Driver | None] = ask_driver
    devices: Path = Path("/dev")

    @property
    def has_gpu(self) -> bool:
        """True if the system has a GPU of NVIDIA's, whoever can use it."""
        return any(self.devices.glob("nvidia[0-9]*"))


def why_none(hardware: Hardware, environ: Mapping[str, str]) -> str:
    """Why torch can use no GPU, and what would help."""
    if not hardware.has_gpu:
        return "no GPU is present; nearest trainer.accelerator=cpu"
    driver, build = hardware.driver(), hardware.build()
    if driver is None:
        return "a GPU is present, but its driver does not answer: `nvidia-smi` says why; until then use cpu"
    if build.cuda is None:
        return f"torch {build.version} was built without CUDA; install a build for CUDA {driver.cuda}, or use cpu"
    if major(build.cuda) > major(driver.cuda):
        return (
            f"the driver ({driver.version}) runs CUDA {driver.cuda} and older, but torch {build.version} was built for "
            f"CUDA {build.cuda}; update the driver, or install a build of torch for CUDA {major(driver.cuda)}"
        )
    if VISIBLE in environ:
        known = ",".join(str(card.index) for card in driver.cards)
        return f"{VISIBLE}={environ[VISIBLE]!r} leaves none of the GPUs {known}; unset it, or name some of them"
    return "torch finds no GPU, though the driver has some: `python -c 'import torch; torch.cuda.init()'` says why"


def gpu_set_faults(
    accelerator: str, ranks: int, launched: bool, hardware: Hardware, environ: Mapping[str, str]
) -> Iterator[Fault]:
    """Faults of the GPUs that `ranks` processes of this machine would use together; `launched` says that they are
    there already, so that nothing is forked."""
    driver = hardware.driver()
    if driver is None:
        if hardware.has_gpu and not launched:
            reason = (
                "NVML does not answer (`nvidia-smi` says why), and to count the GPUs without it starts CUDA, after "
                "which no rank can be forked; mend that, or start the ranks by torchrun"
            )
            yield Fault(KEY, accelerator, reason)
        return
    cards = visible(driver.cards, environ.get(VISIBLE))[:ranks]
    if ranks > 1 and not hardware.build().nccl:
        version = hardware.build().version
        yield Fault(KEY, accelerator, f"torch {version} has no NCCL, which {ranks} ranks need; use one rank, or cpu")
    if ranks > 1 and (sliced := [str(card.index) for card in cards if card.in_slices]):
        reason = (
            f"GPU {', '.join(sliced)} is split into MIG slices, which NCCL cannot connect; switch MIG off (nvidia-smi "
            f"-mig 0), name whole GPUs in {VISIBLE}, or use one rank"
        )
        yield Fault(KEY, accelerator, reason)
    kinds = {card.name: [str(one.index) for one in cards if one.name == card.name] for card in cards}
    if len(kinds) > 1:
        those = "; ".join(f"{name}: {','.join(indices)}" for name, indices in kinds.items())
        reason = (
            f"the GPUs are of {len(kinds)} kinds ({those}), of which the slowest would rule; name one's in {VISIBLE}"
        )
        yield Fault(KEY, accelerator, reason)


def visible(cards: tuple[Card, ...], named: str | None) -> tuple[Card, ...]:
    """The cards that `CUDA_VISIBLE_DEVICES` names, by index or by the beginning of a UUID, up to the first that is
    none; all where it is not set."""
    if named is None:
        return cards
    found: list[Card] = []
    for word in map(str.strip, named.split(",")):
        match = [card for card in cards if word and (str(card.index) == word or card.uuid.startswith(word))]
        if len(match) != 1:
            break
        found += match
    return tuple(found)


def major(version: str) -> int:
    return int(version.partition(".")[0] or 0)
