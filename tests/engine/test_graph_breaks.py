"""What stands in the way of `torch.compile`: the graph breaks of a block's forward. The numbers may only fall."""

import pytest
import torch

from project.model.balance import Balancing
from project.model.block import Block
from project.spec.model import ModelConfig

SIZES = {"num_layers": 2, "d_model": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "d_ff": 64}
BREAKS = {"dropless": 0, "a capacity": 5, "a dense layer": 0}
"""By kind of block, without parallelism."""
KINDS = {
    "dropless": ModelConfig(**SIZES, max_seq_len=16),
    "a capacity": ModelConfig(**SIZES, max_seq_len=16, capacity_factor=1.0, capacity_group=4),
    "a dense layer": ModelConfig(**SIZES, max_seq_len=16, num_dense_layers=2),
}


@pytest.mark.filterwarnings("ignore")  # dynamo itself touches what warns
@pytest.mark.parametrize("kind", KINDS)
def test_a_block_breaks_a_graph_no_more_often_than_it_did(kind: str) -> None:
    config = KINDS[kind]
    block = Block(config, 1).bfloat16()  # in other dtypes dynamo knows no grouped_mm
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_(std=0.02)
    cos_SC = torch.ones(config.max_seq_len, config.head_dim)
    x_BSD = torch.randn(2, config.max_seq_len, config.d_model, dtype=torch.bfloat16, requires_grad=True)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(block)(x_BSD, cos_SC, cos_SC, Balancing())
    said = [f"{each.reason}: {each.user_stack[-1]}" for each in explained.break_reasons if each.user_stack]
    assert explained.graph_break_count == BREAKS[kind], said
