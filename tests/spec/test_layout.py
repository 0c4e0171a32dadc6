"""Ranks and their coordinates."""

from project.spec.layout import ParallelLayout


def test_the_document_s_ranks_hold_tensor_rank_r_and_expert_r() -> None:
    layout = ParallelLayout(pp=4, tp=4, ep=4)
    assert layout.world_size == 16
    for rank in range(16):
        at = layout.coordinates(rank)
        assert (at.pp, at.tp, at.ep) == (rank // 4, rank % 4, rank % 4)


def test_a_stage_is_a_contiguous_block_and_tp_is_innermost() -> None:
    layout = ParallelLayout(pp=2, dp=2, tp=2, ep=4)
    assert [tuple(layout.coordinates(rank)[:3]) for rank in range(8)] == [
        (pp, dp, tp) for pp in range(2) for dp in range(2) for tp in range(2)
    ]
    assert [layout.coordinates(rank).ep for rank in range(4)] == [0, 1, 2, 3]


def test_the_expert_axes_cover_the_same_ranks_as_the_dense_axes() -> None:
    layout = ParallelLayout(dp=4, tp=2, ep=2, etp=2)
    assert layout.edp * layout.ep * layout.etp == layout.dp * layout.tp
    assert len({layout.coordinates(rank)[3:] for rank in range(layout.world_size)}) == 8
