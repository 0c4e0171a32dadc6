"""A check that the ranks' loaders have equally many batches: the ranks of a step wait for one another, so that one
that has a batch more would wait for ever. All functions are collective and raise `UnequalLoaders` on all ranks."""

import math
from collections.abc import Sequence

import lightning.pytorch as L

from project.engine.mesh import gathered
from project.spec.fault import Told
from project.spec.layout import ParallelLayout

WHAT_TO_DO = (
    "the ranks of a step wait for one another: give each replica as many batches (drop_last=True, or a "
    "DistributedSampler)"
)


class UnequalLoaders(Told, ValueError):
    """Loaders of the ranks that have different numbers of batches."""


def check_training_loader(trainer: L.Trainer, layout: ParallelLayout) -> None:
    check_lengths("training", trainer.num_training_batches, layout)


def check_validation_loaders(trainer: L.Trainer, layout: ParallelLayout) -> None:
    lengths = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
    check_lengths("validation", " + ".join(map(str, lengths)), layout)


def check_training_batch(trainer: L.Trainer, layout: ParallelLayout) -> None:
    """Before a batch: a loader without a length shows only then whether it is the last one."""
    if math.isinf(trainer.num_training_batches):
        check_end("training", trainer.fit_loop.epoch_loop.batch_progress.is_last_batch, layout)


def check_validation_batch(trainer: L.Trainer, layout: ParallelLayout) -> None:
    loop = trainer.fit_loop.epoch_loop.val_loop if trainer.state.fn == "fit" else trainer.validate_loop
    if any(math.isinf(length) for length in loop.max_batches):
        check_end("validation", loop.batch_progress.is_last_batch, layout)


def check_lengths(which: str, here: object, layout: ParallelLayout) -> None:
    everywhere = gathered(here)
    if any(length != everywhere[0] for length in everywhere):
        said = by_replica([f"{length} batches" for length in everywhere], layout)
        raise UnequalLoaders(f"the replicas' {which} loaders are of different length: {said}; {WHAT_TO_DO}")


def check_end(which: str, is_last: bool, layout: ParallelLayout) -> None:
    ends = gathered(is_last)
    if any(ends) and not all(ends):
        said = by_replica(["ends" if end else "goes on" for end in ends], layout)
        raise UnequalLoaders(
            f"the replicas' {which} loaders are of different length: after this batch {said}; {WHAT_TO_DO}"
        )


def by_replica(everywhere: Sequence[str], layout: ParallelLayout) -> str:
    """Says what the ranks of each replica have, each value once."""
    of_replica: dict[int, dict[str, None]] = {}
    for rank, value in enumerate(everywhere):
        of_replica.setdefault(layout.coordinates(rank).dp, {})[value] = None
    return ", ".join(f"replica {dp} {' or '.join(values)}" for dp, values in of_replica.items())
