"""One entry of a schedule, and the text form that `torch.distributed.pipelining` gives it. A file of them is
checked before a run starts.
"""

import re
from typing import NamedTuple


class Action(NamedTuple):
    """`kind` is F forward, B backward, or the two halves of a backward: I of the inputs and W of the weights."""

    stage: int
    kind: str
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"


Cell = tuple[Action, ...]
"""What starts together: one action, or several that overlap; none where the rank is idle."""

_SHOWN = 40
_ACTION = re.compile(r"(\d+)([FIWB])(\d+)", re.ASCII)
_OVERLAPPED = re.compile(r"\((.*)\)OVERLAP_F_B", re.ASCII)


def parse_cell(text: str) -> Cell:
    """`2B0`, or `(0F1;3B0)OVERLAP_F_B`, or nothing.

    ValueError for anything else, communication included: the runtime adds that itself.
    """
    if not text.strip():
        return ()
    overlapped = _OVERLAPPED.fullmatch(text.strip())
    return tuple(map(_parse, overlapped[1].split(";") if overlapped else [text]))


def _parse(text: str) -> Action:
    match = _ACTION.fullmatch(text.strip())
    if match is None:
        shown = text.strip()[:_SHOWN]  # of what may be no schedule at all
        raise ValueError(f"{shown!r} is no action; it is a stage, F, I, W or B, and a microbatch, as in 2F0")
    stage, kind, microbatch = match.groups()
    return Action(int(stage), kind, int(microbatch))
