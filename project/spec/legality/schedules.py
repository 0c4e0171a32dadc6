"""What the schedules of `torch.distributed.pipelining` ask for (torch 2.13, `schedules.py`). A schedule's file says for
itself how many stages and microbatches there are, and is checked against the layout where it is read.
"""

from __future__ import annotations

from project.spec.layout import SCHEDULES, is_schedule_file
from project.spec.legality.rule import Rule
from project.spec.legality.size import Values, divisors

STAGES_A_RANK = {"1F1B": 1, "GPipe": 1, "ZBVZeroBubble": 2, "DualPipeV": 2}
FILLED = {"1F1B": "GPipe", "DualPipeV": "ZBVZeroBubble"}  # with at least a microbatch a stage; and what takes fewer
IN_ROUNDS = ("Interleaved1F1B", "InterleavedZeroBubble")


def _known(v: Values) -> str | None:
    schedule = v["parallel.schedule"]
    return None if schedule in SCHEDULES or is_schedule_file(schedule) else "is not known, nor the path of a .csv file"


def _stages_a_rank(v: Values) -> str | None:
    schedule, wanted = v["parallel.schedule"], STAGES_A_RANK.get(v["parallel.schedule"])
    if wanted is None or v["parallel.virtual_stages"] == wanted:
        return None
    return f"parallel.schedule={schedule} has {wanted} stage{'s' if wanted > 1 else ''} on each rank"


def _takeable_stages(v: Values) -> range:
    wanted = STAGES_A_RANK.get(v["parallel.schedule"])
    return range(1, v["model.num_layers"] + 1) if wanted is None else range(wanted, wanted + 1)


def fills_pipeline(v: Values) -> str | None:
    schedule, microbatches = v["parallel.schedule"], v["parallel.microbatches"]
    if schedule in FILLED and microbatches < (least := _least(v)):
        other = f"parallel.schedule={FILLED[schedule]} does not"
        return f"{schedule} needs at least as many microbatches as stages, {least} ({other})"
    rounds = max(1, microbatches // v["parallel.pp"])
    if schedule in IN_ROUNDS and microbatches % rounds:
        return f"{schedule} takes them in microbatches // parallel.pp = {rounds} rounds, which does not divide them"
    return None


def _least(v: Values) -> int:
    return int(v["parallel.pp"] * STAGES_A_RANK.get(v["parallel.schedule"], 1))


def _filling_microbatches(v: Values) -> list[int]:
    of_batch = divisors(max(v["data.batch_size"] // v["parallel.dp"], 1))
    fitting = [number for number in of_batch if not fills_pipeline({**v, "parallel.microbatches": number})]
    return fitting or [_least(v)]


SCHEDULE_RULES: tuple[Rule, ...] = (
    Rule("parallel.schedule", (), _known, lambda v: SCHEDULES),
    Rule("parallel.virtual_stages", ("parallel.schedule", "model.num_layers"), _stages_a_rank, _takeable_stages),
    Rule(
        "parallel.microbatches",
        ("parallel.pp", "parallel.schedule", "parallel.dp", "data.batch_size"),
        fills_pipeline,
        _filling_microbatches,
    ),
)
