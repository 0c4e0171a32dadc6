"""Faults of what a sweep is to optimize: a figure that the runs, as they are configured, will not have."""

from collections.abc import Iterator, Mapping
from typing import Any

from project.preflight.machine import Surroundings, on_gpus
from project.spec.fault import Fault
from project.spec.figures import MEDIANS, WARMUP_STEPS

LOGGED = ("train_loss_first", "train_loss_last", *MEDIANS)
"""Figures that come from `callbacks.step_metrics`."""


def objective_faults(config: Mapping[str, Any], around: Surroundings) -> Iterator[Fault]:
    """Faults of the objective of an optimizing sweep, by its first job's configuration."""
    trainer, callbacks, asked = config["trainer"], config["callbacks"], config["objective"]
    for name in asked if isinstance(asked, list) else [asked]:
        steps = trainer.get("max_steps")
        if name in MEDIANS and type(steps) is int and steps <= WARMUP_STEPS:
            message = (
                f"is a median without the first {WARMUP_STEPS} steps, and trainer.max_steps={steps} leaves none; "
                f"nearest trainer.max_steps={WARMUP_STEPS + 1}"
            )
            yield Fault("objective", name, message)
        if name == "mfu" and not on_gpus(str(trainer.get("accelerator")), around):
            yield Fault("objective", name, "needs the device's peak, and no processor's is known; step_time_s would do")
        if name == "val_loss" and trainer.get("limit_val_batches") == 0:
            yield Fault("objective", name, "is a figure of validation, which trainer.limit_val_batches=0 leaves out")
        if name in LOGGED and not callbacks.get("step_metrics"):
            yield Fault("objective", name, "comes from callbacks.step_metrics, which is left out")
        if name == "communication_bytes" and not callbacks.get("communication"):
            yield Fault("objective", name, "comes from callbacks.communication, which is left out")
