"""The first layers may be dense: one feed-forward network, as wide as the experts that a token passes elsewhere."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from project.model.transformer import Balancing
from project.spec.model import ModelConfig
from tests.harness.case import initialized

CONFIG = ModelConfig(
    num_layers=3, num_dense_layers=1, num_shared_experts=1, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8,
    d_ff=24, vocab_size=32, max_seq_len=16,
)  # fmt: skip
TOKENS = torch.arange(16).view(2, 8)


def test_a_dense_layer_has_a_feed_forward_network_instead_of_experts() -> None:
    model = initialized(CONFIG)
    names = {name.removeprefix("layers.0.") for name, _ in model.named_parameters() if name.startswith("layers.0.")}
    inner = {name for name in names if not name.startswith("attention")}
    assert inner == {"feed_forward_norm.weight", *(f"feed_forward.{matrix}.weight" for matrix in ("w1", "w2", "w3"))}
    assert model.layers["0"].feed_forward.w1.weight.shape == ((2 + 1) * 24, 16)
    assert not any("feed_forward" in name for name, _ in model.layers["1"].named_parameters())


def test_a_dense_layer_s_output_is_added_to_the_stream_and_it_reports_no_balance() -> None:
    model = initialized(CONFIG)
    torch.manual_seed(0)
    block, x_BSD = model.layers["0"], torch.randn(2, 8, 16)
    middle_BSD = x_BSD + block.attention(block.attention_norm(x_BSD), model.rope_cos, model.rope_sin)
    inner_BSD, network = block.feed_forward_norm(middle_BSD), block.feed_forward
    added_BSD = network.w2(F.silu(network.w1(inner_BSD)) * network.w3(inner_BSD))
    out_BSD, sums_BK = block(x_BSD, model.rope_cos, model.rope_sin, Balancing())
    torch.testing.assert_close(out_BSD, middle_BSD + added_BSD)
    assert sums_BK is None


def test_only_layers_with_experts_report_balance_and_all_learn() -> None:
    model, balancing = initialized(CONFIG), Balancing()
    model(TOKENS, balancing).square().mean().backward()
    assert list(balancing.sums) == [1, 2]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_all_layers_may_be_dense() -> None:
    model, balancing = initialized(replace(CONFIG, num_dense_layers=3)), Balancing()
    model(TOKENS, balancing).square().mean().backward()
    assert balancing.sums == {}


def test_a_dense_layer_s_initial_output_is_as_small_as_that_of_experts() -> None:
    model = initialized(replace(CONFIG, d_model=64, d_ff=96))
    dense, expert = model.layers["0"].feed_forward.w2.weight, model.layers["1"].moe.experts.w2[0]
    torch.testing.assert_close(dense.std(), expert.std(), rtol=0.05, atol=0)


def test_a_layer_with_experts_begins_the_same_whatever_the_layers_before_it_are() -> None:
    some, none = initialized(CONFIG), initialized(replace(CONFIG, num_dense_layers=0))
    for name, parameter in some.layers["2"].named_parameters():
        assert torch.equal(parameter, none.layers["2"].get_parameter(name))
