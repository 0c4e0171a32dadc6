"""The layers and experts of a rank, as found in its parameters."""

import torch
from torch import nn

from project.callbacks.layout_table import placement
from project.spec.layout import ParallelLayout


class Held(nn.Module):
    def __init__(self, layers, experts):
        super().__init__()
        self.layers = nn.ModuleDict({str(layer): nn.ModuleDict({"experts": Weights(experts)}) for layer in layers})


class Weights(nn.Module):
    def __init__(self, experts):
        super().__init__()
        self.w1 = nn.Parameter(torch.ones(experts, 2, 2))


def test_a_rank_s_placement_names_layers_and_experts_globally():
    layout = ParallelLayout(pp=4, tp=4, ep=4)
    found = placement(14, layout, nn.ModuleList([Held(layers=[6, 7], experts=1)]), parameters=8)
    assert (found.pp, found.tp, found.layers, found.experts) == (3, 2, [6, 7], [2])


def test_a_rank_holds_several_experts_where_there_are_more_than_ep_ranks():
    found = placement(1, ParallelLayout(tp=2, ep=2), Held(layers=[0], experts=4), parameters=16)
    assert found.experts == [4, 5, 6, 7]
