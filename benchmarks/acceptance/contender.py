"""A training step of the document's model without our strategy, in one process: the bare model of this project, or
`transformers`' Mixtral with its grouped products. Autocast to bf16, fused AdamW, the whole batch at once.

    python -m benchmarks.acceptance.contender mixtral|bare cuda|cpu eager|compiled STEPS full|tiny

Prints each step's seconds, and the peak of the device's memory.
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.mixtral import mixtral
from project.model.init import reset_buffers
from project.model.transformer import Balancing, Transformer
from project.spec.model import ModelConfig
from project.training.split_transformer import cross_entropy

SIZES = {
    "full": (ModelConfig(), 8, 256),
    "tiny": (
        ModelConfig(num_layers=2, d_model=64, num_kv_heads=4, num_heads=4, head_dim=16, d_ff=64, vocab_size=128),
        8,
        32,
    ),
}


def theirs(config: ModelConfig, device: torch.device) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    with device:
        model = mixtral(config, experts_implementation="grouped_mm")
    return model, lambda model, tokens: model(input_ids=tokens, labels=tokens).loss


def bare(config: ModelConfig, device: torch.device) -> tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]:
    with device:
        model = Transformer(config)
    for parameter in model.parameters():
        parameter.data.normal_(std=config.init_std)
    reset_buffers(model)
    targets = torch.zeros((), dtype=torch.int64, device=device)

    def loss(model: nn.Module, tokens: Tensor) -> Tensor:
        logits = model(tokens, balancing=Balancing(torch.ones((), device=device)))
        return cross_entropy(logits, tokens.roll(-1, 1) + targets)

    return model, loss


def main(which: str, accelerator: str, how: str, steps: int, size: str) -> None:
    config, batch, seq_len = SIZES[size]
    device = torch.device(accelerator)
    model, loss = {"mixtral": theirs, "bare": bare}[which](config, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    run = torch.compile(model) if how == "compiled" else model
    text = torch.randint(0, config.vocab_size, (steps, batch, seq_len), generator=torch.Generator().manual_seed(0))
    for tokens in text:
        start = time.perf_counter()
        with torch.autocast(accelerator, dtype=torch.bfloat16):
            found = loss(run, tokens.to(device))
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert found.isfinite().item()  # waits until the device has got there
        print(f"step {time.perf_counter() - start}", flush=True)
    peak = torch.cuda.max_memory_allocated() if accelerator == "cuda" else 0
    print(f"peak {peak / 2**30:.1f}")


if __name__ == "__main__":
    which, accelerator, how, steps, size = sys.argv[1:]
    main(which, accelerator, how, int(steps), size)
