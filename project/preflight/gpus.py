"""Faults of the machine's GPUs: why none can be used, or why they cannot be used together.

What there is says NVIDIA's driver (`project.preflight.nvml`), which needs no CUDA; what torch can do says its build.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from project.spec.fault import Fault

KEY = "trainer.accelerator"
VISIBLE = "CUDA_VISIBLE_DEVICES"
BY_ADDRESS = "CUDA_DEVICE_ORDER=PCI_BUS_ID"


@dataclass(frozen=True)
class Card:
    """A GPU: its place in the order of PCI addresses, its number of MIG slices (None: it is whole), and its compute
    capability."""

    index: int
    uuid: str
    name: str
    slices: int | None = None
    capability: tuple[int, int] = (9, 0)


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, the newest CUDA that it runs, and the GPUs that it has."""

    version: str
    cuda: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Silence:
    """There is no driver, or it does not answer."""

    reason: str


class Build(NamedTuple):
    """The installed torch: its version, the CUDA that it was built for, whether it has NCCL, the GPUs that it has code
    for, as in "sm_90", and why it cannot be imported, if it cannot."""

    version: str
    cuda: str | None
    nccl: bool
    architectures: Sequence[str] = ()
    broken: str | None = None


@dataclass(frozen=True)
class Hardware:
    """The places to ask about this machine's GPUs; each is asked only where its answer is needed."""

    build: Callable[[], Build]
    driver: Callable[[], Driver | Silence]
    devices: Path = Path("/dev")

    @property
    def has_gpu(self) -> bool:
        """True if the system has a GPU of NVIDIA's, whoever can use it."""
        return any(self.devices.glob("nvidia[0-9]*"))


def why_none(hardware: Hardware, environ: Mapping[str, str]) -> str:
    """Returns why torch can use no GPU, and what would help."""
    if not hardware.has_gpu:
        return "no GPU is present; nearest trainer.accelerator=cpu"
    driver, build = hardware.driver(), hardware.build()
    if isinstance(driver, Silence):
        return f"a GPU is present, but its driver does not answer: {driver.reason}; until then use cpu"
    if build.broken is not None:
        return f"torch cannot be imported: {build.broken}; install it anew"
    if build.cuda is None:
        return f"torch {build.version} was built without CUDA; install a build for CUDA {driver.cuda}, or use cpu"
    if why := _too_old(driver, build):
        return why
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
    if isinstance(driver, Silence):
        if hardware.has_gpu and not launched:
            reason = (
                f"the driver does not answer: {driver.reason}; to count the GPUs without it starts CUDA, after which "
                "no rank can be forked; mend that, start the ranks by torchrun, or use cpu"
            )
            yield Fault(KEY, accelerator, reason)
        return
    cards = visible(driver.cards, environ.get(VISIBLE))[:ranks]
    build = hardware.build()
    if why := _too_old(driver, build) or _without_code(cards, build) or _sliced(cards, ranks):
        yield Fault(KEY, accelerator, why)
    elif not build.nccl:
        reason = f"torch {build.version} has no NCCL, which ranks on GPUs need; install a build that has it, or use cpu"
        yield Fault(KEY, accelerator, reason)
    elif ranks > 1 and (why := _mixed(driver.cards, cards, environ)):
        yield Fault(KEY, accelerator, why)


def _too_old(driver: Driver, build: Build) -> str | None:
    if build.cuda is None or major(build.cuda) <= major(driver.cuda):  # minor versions are compatible
        return None
    return (
        f"the driver ({driver.version}) runs CUDA {driver.cuda} and older, but torch {build.version} was built for "
        f"CUDA {build.cuda}; update the driver, install a build of torch for CUDA {major(driver.cuda)}, or use cpu"
    )


def _without_code(cards: Sequence[Card], build: Build) -> str | None:
    strange = [card for card in cards if not has_code_for(card.capability, build.architectures)]
    if not strange:
        return None
    capability = ".".join(map(str, strange[0].capability))
    return (
        f"torch {build.version} has no code for {strange[0].name}, of compute capability {capability}; it has for "
        f"{', '.join(build.architectures)}; install a build that has it, or use cpu"
    )


def has_code_for(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Returns whether a build has machine code (`sm_90`: of the same major capability, up to the card's) or code that
    the driver can translate (`compute_90`: of any up to the card's). True where the build does not say."""
    for name in architectures:
        kind, _, digits = name.partition("_")
        digits = digits.rstrip("af")  # sm_90a
        built = (int(digits[:-1]), int(digits[-1]))
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return True
    return not architectures


def _sliced(cards: Sequence[Card], ranks: int) -> str | None:
    sliced = [card for card in cards if card.slices is not None]
    named = ", ".join(str(card.index) for card in sliced)
    if ranks > 1 and sliced:
        return (
            f"GPU {named} is split into MIG slices, which NCCL cannot connect; switch MIG off (nvidia-smi -mig 0), "
            f"name whole GPUs in {VISIBLE}, or use one rank"
        )
    if sliced and not any(card.slices for card in sliced):
        return (
            f"GPU {named} is in MIG mode and has no slice, so that CUDA finds none; make one (nvidia-smi mig -cgi), "
            "switch MIG off (nvidia-smi -mig 0), or use cpu"
        )
    return None


def _mixed(all_cards: Sequence[Card], used: Sequence[Card], environ: Mapping[str, str]) -> str | None:
    """CUDA numbers the quickest card first unless it is told to go by PCI addresses: where the machine's cards differ,
    that order or UUIDs alone say which are meant."""
    certain = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or environ.get(VISIBLE, "").startswith("GPU-")
    if len({card.name for card in (used if certain else all_cards)}) < 2:
        return None
    kinds: dict[str, list[str]] = {}
    for card in all_cards:
        kinds.setdefault(card.name, []).append(str(card.index))
    those = "; ".join(f"{name}: {','.join(indices)}" for name, indices in kinds.items())
    longest: list[str] = max(kinds.values(), key=len)
    most = ",".join(longest)
    return (
        f"the GPUs are of {len(kinds)} kinds ({those}), of which the slowest would rule; name one's, as with "
        f"{BY_ADDRESS} {VISIBLE}={most}, or use cpu"
    )


def hidden(hardware: Hardware, environ: Mapping[str, str]) -> str:
    """Says how many cards the environment leaves, where it leaves fewer than there are."""
    driver = hardware.driver() if VISIBLE in environ else Silence("not asked")
    if isinstance(driver, Silence):
        return ""
    shown, there = len(visible(driver.cards, environ[VISIBLE])), len(driver.cards)
    return f" ({VISIBLE}={environ[VISIBLE]} leaves {shown} of {there})" if shown < there else ""


def visible(cards: tuple[Card, ...], named: str | None) -> tuple[Card, ...]:
    """The cards that `CUDA_VISIBLE_DEVICES` names, by index or by the beginning of a UUID, up to the first that is
    none; all where it is not set, none where one is named twice. A process sees one MIG slice at most, whose card it
    is here."""
    if named is None:
        return cards
    if named.startswith("MIG-"):
        return tuple(card for card in cards if card.slices)[:1]
    found: list[Card] = []
    for word in map(str.strip, named.split(",")):
        by_uuid = word.startswith("GPU-")
        match = [card for card in cards if (card.uuid.startswith(word) if by_uuid else str(card.index) == word)]
        if len(match) != 1:
            break
        if match[0] in found:
            return ()
        found += match
    return tuple(found)


def major(version: str) -> int:
    return int(version.partition(".")[0] or 0)
