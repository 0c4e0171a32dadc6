"""The load of the experts."""

import torch

from project.callbacks.expert_metrics import ExpertLoad, imbalance


def test_expert_load_is_a_fraction_over_all_steps():
    load = ExpertLoad(num_layers=2, num_experts=2)
    load.update(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    load.update(torch.tensor([[3.0, 1.0], [4.0, 0.0]]))
    assert load.compute().tolist() == [[0.5, 0.5], [0.75, 0.25]]


def test_a_layer_without_experts_has_no_load():
    load = ExpertLoad(num_layers=2, num_experts=2)
    load.update(torch.tensor([[0.0, 0.0], [1.0, 3.0]]))
    assert load.by_layer() == [None, [0.25, 0.75]]


def test_imbalance_is_1_when_even_and_the_number_of_experts_when_all_go_to_one():
    load_LE = torch.tensor([[2.0, 2.0, 2.0, 2.0], [8.0, 0.0, 0.0, 0.0]])
    assert imbalance(load_LE).tolist() == [1.0, 4.0]
