"""Parameters of every rank, in closed form, are those that the rank builds."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from project.engine.mesh import build_mesh
from project.engine.parts import local_tensor, split
from project.planner.cost.parameters import Parameters, parameters_on
from project.spec.cost import total_parameters
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.partition import partition, stages_of
from tests.harness.case import Case
from tests.harness.training import CaseModule
from tests.parity import matrix

DOCUMENT = ModelConfig()
# The kind of a parameter, by the first of these words that is in its name.
KINDS = {
    "embedding": "embedding",
    "shared_gate": "router",
    "norm": "norms",
    "attention": "attention",
    "router": "router",
    "experts": "experts",
    "shared": "shared",
    "feed_forward": "feed_forward",
    "head": "head",
}


def built(rank: int, world_size: int, cases: Sequence[Case]) -> list[Parameters]:
    """The parameters of a rank in each case, built as for training but without values."""
    return [built_of(rank, case) for case in cases]


def built_of(rank: int, case: Case) -> Parameters:
    module, layout = CaseModule(case), case.layout
    mesh, parts, plan = build_mesh(layout, "cpu"), partition(module.layer_costs(), layout), module.plan(layout)
    held: dict[str, int] = defaultdict(int)
    for stage in stages_of(layout.coordinates(rank).pp, layout):
        part = split(module, parts[stage], plan, layout, mesh, torch.float32)
        for name, parameter in part.named_parameters():
            kind = next(kind for word, kind in KINDS.items() if word in name)
            if ".attention." in name and case.model.qk_norm_over == "width":
                kind = "attention"  # divided, as the heads are
            held[kind] += local_tensor(parameter).numel()
    return Parameters(**held)


def planned(case: Case) -> list[Parameters]:
    layout = case.layout
    ranks = [layout.coordinates(rank) for rank in range(layout.world_size)]
    return [parameters_on(case.model, layout, at.pp, case.seq_len) for at in ranks]


def cases_of_the_matrix() -> dict[int, list[Case]]:
    """The cases by their number of ranks."""
    found: dict[int, list[Case]] = defaultdict(list)
    for choice in matrix.matrix(64):
        case = matrix.case(choice)
        found[case.layout.world_size].append(case)
    return found


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 16])
def test_planned_parameters_of_every_rank_are_the_trainer_s_in_the_parity_matrix(ranks, world_size: int) -> None:
    cases = cases_of_the_matrix()[world_size]
    assert cases
    held = zip(*ranks.run(world_size, built, cases), strict=True)
    for case, by_rank in zip(cases, held, strict=True):
        assert list(by_rank) == planned(case), case


def test_the_parity_matrix_has_no_other_numbers_of_ranks() -> None:
    assert cases_of_the_matrix().keys() == {1, 2, 4, 8, 16}


def test_the_document_s_rank_holds_the_parameters_that_its_notes_say() -> None:
    layout = ParallelLayout(pp=4, tp=4, ep=4, microbatches=4)
    assert parameters_on(DOCUMENT, layout, 1, 256).total == 27_275_264
    one = parameters_on(DOCUMENT, ParallelLayout(), 0, 256)
    assert one.total == total_parameters(DOCUMENT)
    assert one.total - one.embedding - one.head == 436_257_792


def test_planned_parameters_of_thousands_of_ranks_add_up_to_the_model_s() -> None:
    model = replace(DOCUMENT, num_layers=61, num_experts=256, top_k=8, num_dense_layers=3, num_shared_experts=1)
    layout = ParallelLayout(pp=16, dp=128, tp=8, ep=256, microbatches=32, dp_mode="shard")
    assert layout.world_size == 16_384
    held = [parameters_on(model, layout, pp, 4096) for pp in range(layout.pp)]
    divided = sum(of.total - of.whole for of in held) * layout.dp * layout.tp
    assert divided + sum(of.whole for of in held) == total_parameters(model)
