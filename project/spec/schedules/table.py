"""All schedules by name. A new one is a file beside this and a line in `SCHEDULES`."""

from project.spec.layout import ParallelLayout
from project.spec.schedules.dual_pipe_v import DUAL_PIPE_V
from project.spec.schedules.file import from_file, is_schedule_file
from project.spec.schedules.gpipe import GPIPE
from project.spec.schedules.interleaved import INTERLEAVED
from project.spec.schedules.interleaved_zero_bubble import INTERLEAVED_ZERO_BUBBLE
from project.spec.schedules.looped_bfs import LOOPED_BFS
from project.spec.schedules.one_f_one_b import ONE_F_ONE_B
from project.spec.schedules.schedule import Schedule
from project.spec.schedules.v_half import V_HALF
from project.spec.schedules.v_min import V_MIN
from project.spec.schedules.zero_bubble_v import ZERO_BUBBLE_V

SCHEDULES: dict[str, Schedule] = {
    schedule.name: schedule
    for schedule in (
        ONE_F_ONE_B,
        GPIPE,
        INTERLEAVED,
        LOOPED_BFS,
        INTERLEAVED_ZERO_BUBBLE,
        ZERO_BUBBLE_V,
        DUAL_PIPE_V,
        V_HALF,
        V_MIN,
    )
}


def schedule_of(layout: ParallelLayout) -> Schedule:
    """KeyError for a name that is neither in the table nor the path of a file; errors of `read_schedule` for a file."""
    return from_file(layout.schedule) if is_schedule_file(layout.schedule) else SCHEDULES[layout.schedule]
