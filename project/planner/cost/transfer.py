"""Operations that send, and what they put on the wire."""

from __future__ import annotations

from typing import Any, NamedTuple

from project.planner.machine.group import Group

DIRECTIONS = ("forward", "backward", "step")


class Transfer(NamedTuple):
    """`calls` operations in all of a step, each given `given` bytes by this rank. `stage` is None for what a rank does
    once for all its stages; `module` says what it is for. `times` of those calls belong to one microbatch, or are 0
    where the calls are the step's. `neighbour` is the stage at a message's other end."""

    stage: int | None
    module: str
    group: Group
    collective: str
    direction: str
    calls: int
    given: int
    times: int = 0
    neighbour: int | None = None

    @property
    def bytes(self) -> int:
        """On the wire, of all calls."""
        return self.calls * on_the_wire(self.collective, self.given, self.group.size)


def on_the_wire(collective: str, given: int, ranks: int) -> int:
    """Bytes that this rank sends in one call; the formulas of `project.observe.message`."""
    match collective:
        case "all_reduce":
            return -(-2 * given * (ranks - 1) // ranks)
        case "reduce_scatter" | "all_to_all":
            return -(-given * (ranks - 1) // ranks)
        case "all_gather":
            return given * (ranks - 1)
        case "send":
            return given
        case _:
            return 0


def by_axis(transfers: list[Transfer]) -> dict[str, dict[str, dict[str, Any]]]:
    """As the ledger has it: `{axis: {collective: {calls, bytes, direction: {calls, bytes}}}}`."""
    lines: dict[tuple[str, str, str], list[int]] = {}
    for transfer in transfers:
        line = lines.setdefault((transfer.group.axis, transfer.collective, transfer.direction), [0, 0])
        line[0] += transfer.calls
        line[1] += transfer.bytes
    whole: dict[str, dict[str, dict[str, Any]]] = {}
    for axis, collective, direction in sorted(lines, key=lambda key: (key[:2], DIRECTIONS.index(key[2]))):
        calls, sent = lines[axis, collective, direction]
        entry = whole.setdefault(axis, {}).setdefault(collective, {"calls": 0, "bytes": 0})
        entry["calls"] += calls
        entry["bytes"] += sent
        entry[direction] = {"calls": calls, "bytes": sent}
    return whole
