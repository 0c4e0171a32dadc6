"""A step of this trainer as `step_time` takes it."""

from __future__ import annotations

from project.metrics.peak import Arithmetic
from project.planner.implementation import ours
from project.planner.step_time import Workload
from project.planner.traffic import Step


def workload(step: Step) -> Workload:
    arithmetic: Arithmetic = "half" if step.precision.startswith(("16", "bf16")) else "fp32"
    how = ours(step.precision, step.layout.dp_mode)
    return Workload(step.config, step.batch, step.seq_len, how, arithmetic)
