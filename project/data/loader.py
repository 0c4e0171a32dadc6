"""A `DataLoader` that counts the batches that training has taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from project.data.sampler import StepSampler


class StepLoader(DataLoader[Any]):
    """Sets its sampler's `position` to the number of batches handed out, however far worker processes run ahead."""

    def __init__(self, sampler: StepSampler, **options: Any) -> None:
        super().__init__(batch_sampler=sampler, **options)
        self._steps = sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            self._steps.position += 1
            yield batch

    # Lightning warns about a loader without these two methods when it resumes. The position itself is in the
    # datamodule's state: Lightning does not restore loaders when it resumes at the end of an epoch.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        del state_dict
