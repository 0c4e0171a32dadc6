"""The layers and ends of the model that each stage holds, and each rank with all its stages."""

from functools import lru_cache
from typing import NamedTuple

from project.spec.cost import stage_costs
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import Costs, Part, partition, stage_to_rank


class Held(NamedTuple):
    """Numbers of layers without and with experts, of embeddings and of heads on a stage, or on a rank."""

    dense: int
    experts: int
    first: int
    last: int

    @property
    def layers(self) -> int:
        return self.dense + self.experts


def held_by(config: ModelConfig, part: Part) -> Held:
    dense = len(range(part.layers.start, min(part.layers.stop, config.num_dense_layers)))
    return Held(dense, len(part.layers) - dense, part.first, part.last)


# Caches are keyed by what matters of a layout: a search asks for many that differ in nothing else.


def parts_of(config: ModelConfig, layout: ParallelLayout, seq_len: int) -> tuple[Part, ...]:
    """Parts of the model by stage, as the trainer cuts it (`MoEModule.layer_costs`)."""
    return _parts_of(config, seq_len, _cut(layout))


def stages_held(config: ModelConfig, layout: ParallelLayout, seq_len: int) -> tuple[Held, ...]:
    return _stages_held(config, seq_len, _cut(layout))


def ranks_held(config: ModelConfig, layout: ParallelLayout, seq_len: int) -> tuple[Held, ...]:
    """By pipeline rank."""
    return _ranks_held(config, seq_len, _cut(layout), layout.schedule)


def ranks_of_stages(layout: ParallelLayout) -> tuple[int, ...]:
    """The pipeline rank of each stage."""
    return _ranks_of_stages(layout.pp, layout.virtual_stages, layout.schedule)


def stages_of_ranks(layout: ParallelLayout) -> tuple[tuple[int, ...], ...]:
    """The stages of each pipeline rank."""
    return _stages_of_ranks(layout.pp, layout.virtual_stages, layout.schedule)


def _cut(layout: ParallelLayout) -> ParallelLayout:
    return ParallelLayout(pp=layout.pp, virtual_stages=layout.virtual_stages, partition=layout.partition)


@lru_cache(maxsize=4096)
def _parts_of(config: ModelConfig, seq_len: int, cut: ParallelLayout) -> tuple[Part, ...]:
    return tuple(partition(Costs(*stage_costs(config, seq_len)), cut))


@lru_cache(maxsize=4096)
def _stages_held(config: ModelConfig, seq_len: int, cut: ParallelLayout) -> tuple[Held, ...]:
    return tuple(held_by(config, part) for part in _parts_of(config, seq_len, cut))


@lru_cache(maxsize=4096)
def _ranks_held(config: ModelConfig, seq_len: int, cut: ParallelLayout, schedule: str) -> tuple[Held, ...]:
    ranks = [Held(0, 0, 0, 0)] * cut.pp
    at = _ranks_of_stages(cut.pp, cut.virtual_stages, schedule)
    for rank, stage in zip(at, _stages_held(config, seq_len, cut), strict=True):
        ranks[rank] = Held(*(mine + its for mine, its in zip(ranks[rank], stage, strict=True)))
    return tuple(ranks)


@lru_cache(maxsize=4096)
def _ranks_of_stages(pp: int, virtual_stages: int, schedule: str) -> tuple[int, ...]:
    return tuple(stage_to_rank(ParallelLayout(pp=pp, virtual_stages=virtual_stages, schedule=schedule)))


@lru_cache(maxsize=4096)
def _stages_of_ranks(pp: int, virtual_stages: int, schedule: str) -> tuple[tuple[int, ...], ...]:
    at = _ranks_of_stages(pp, virtual_stages, schedule)
    return tuple(tuple(stage for stage, rank in enumerate(at) if rank == mine) for mine in range(pp))
