"""The clocks of different machines are put on one."""

import time

import torch

from project.engine.clock import Clock, common_clock

SECOND = 10**9


def ahead(rank: int, world_size: int) -> tuple[int, int]:
    """The offsets that ranks find, and the round trip; the clock of ranks 2 and 3 is five seconds ahead."""

    def here() -> int:
        return time.time_ns() + (5 * SECOND if rank >= 2 else 0)

    clock = common_clock(torch.device("cpu"), machine="second" if rank >= 2 else "first", here=here)
    return clock.ahead_ns, clock.round_trip_ns


def test_a_clock_s_offset_is_found_to_half_a_round_trip(ranks) -> None:
    first, second, third, fourth = ranks.run(4, ahead)
    assert first == second == (0, 0)
    assert third == fourth
    assert abs(third[0] - 5 * SECOND) <= third[1] / 2


def alone(rank: int, world_size: int) -> Clock:
    return common_clock(torch.device("cpu"))


def test_processes_of_one_machine_share_its_clock(ranks) -> None:
    assert [(clock.ahead_ns, clock.round_trip_ns) for clock in ranks.run(2, alone)] == [(0, 0)] * 2
