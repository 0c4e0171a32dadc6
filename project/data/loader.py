"""A `DataLoader` that knows how far training has come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from project.data.sampler import StepSampler


class StepLoader(DataLoader[Any]):
    """Keeps its sampler at the number of batches that it has handed out, however far workers run ahead."""

    def __init__(self, sampler: StepSampler, **options: Any) -> None:
        super().__init__(batch_sampler=sampler, **options)
        self._steps = sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            self._steps.position += 1
            yield batch

    # Lightning takes a loader with these two for one that can resume, else it warns. The position itself travels with
    # the datamodule: Lightning passes loaders by when it resumes at the end of an epoch.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        del state_dict
