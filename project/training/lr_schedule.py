"""Warm-up and cosine decay of the learning rate."""

import math


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int, final_fraction: float) -> float:
    """Returns the factor on the peak learning rate at a step counted from 0: linear up to 1 over the warm-up, a cosine
    down to `final_fraction` at the last step, and constant beyond."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))
