"""Measures what the stages keep for their backwards: `activation_bytes_peak_per_stage` of `summary.json`."""

from contextlib import AbstractContextManager
from typing import Any

from project.callbacks.first_steps import FirstSteps, watching
from project.callbacks.observed import ObservedStrategy, gathered
from project.observe.activations import Activations


class ActivationPeaks(FirstSteps):
    """Reports each stage's largest rank, in bytes."""

    activations: Activations

    def begin(self, strategy: ObservedStrategy) -> None:
        self.activations = Activations()

    def measured(self, strategy: ObservedStrategy) -> AbstractContextManager:
        return watching(strategy, self.activations.forward)

    def entries(self, strategy: ObservedStrategy) -> dict[str, Any]:
        ranks = gathered(self.activations.peaks)
        stages = range(strategy.layout.stages)
        return {"activation_bytes_peak_per_stage": [max(peaks.get(stage, 0) for peaks in ranks) for stage in stages]}
