"""Rules on the stages and microbatches of a layout, read off the schedule's record. A file says for itself how
many there are, and is checked against the layout where it is read.
"""

from project.spec.legality.rule import Rule, Values, divisors
from project.spec.schedules.file import is_schedule_file
from project.spec.schedules.schedule import Schedule, rounds
from project.spec.schedules.table import SCHEDULES


def _schedule(v: Values) -> Schedule | None:
    """None for a file."""
    return SCHEDULES.get(v["parallel.schedule"])


def _known(v: Values) -> str | None:
    known = _schedule(v) is not None or is_schedule_file(v["parallel.schedule"])
    return None if known else "is not known, nor the path of a .csv file"


def _stages_a_rank(v: Values) -> str | None:
    schedule = _schedule(v)
    if schedule is None or schedule.stages_a_rank in (None, v["parallel.virtual_stages"]):
        return None
    stages = f"{schedule.stages_a_rank} stage{'' if schedule.stages_a_rank == 1 else 's'}"
    return f"parallel.schedule={schedule.name} has {stages} on each rank"


def _takeable_stages(v: Values) -> range:
    schedule = _schedule(v)
    if schedule is None or schedule.stages_a_rank is None:
        return range(1, v["model.num_layers"] + 1)
    return range(schedule.stages_a_rank, schedule.stages_a_rank + 1)


def fills_pipeline(v: Values) -> str | None:
    schedule, pp, microbatches = _schedule(v), v["parallel.pp"], v["parallel.microbatches"]
    if schedule is None or schedule.takes(pp, microbatches):
        return None
    if microbatches < (least := schedule.least_microbatches(pp)):
        other = f"parallel.schedule={schedule.for_fewer_microbatches} does not"
        return f"{schedule.name} needs at least as many microbatches as stages, {least} ({other})"
    number = rounds(pp, microbatches)
    return f"{schedule.name} takes them in microbatches // parallel.pp = {number} rounds, which does not divide them"


def _filling_microbatches(v: Values) -> list[int]:
    of_batch = divisors(max(v["data.batch_size"] // v["parallel.dp"], 1))
    fitting = [number for number in of_batch if not fills_pipeline({**v, "parallel.microbatches": number})]
    schedule = _schedule(v)
    return fitting or ([] if schedule is None else [schedule.least_microbatches(v["parallel.pp"])])


SCHEDULE_RULES: tuple[Rule, ...] = (
    Rule("parallel.schedule", (), _known, lambda v: tuple(SCHEDULES)),
    Rule("parallel.virtual_stages", ("parallel.schedule", "model.num_layers"), _stages_a_rank, _takeable_stages),
    Rule(
        "parallel.microbatches",
        ("parallel.pp", "parallel.schedule", "parallel.dp", "data.batch_size"),
        fills_pipeline,
        _filling_microbatches,
    ),
)
