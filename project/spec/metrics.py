"""The metrics that a run logs, by the names that callbacks monitor."""

VALIDATION = ("val/loss",)
TRAINING = (
    *("train/loss", "train/aux_loss", "train/z_loss", "train/dropped_fraction"),
    *("train/grad_norm", "train/lr", "train/tokens_per_second", "train/step_time_s"),
    *("train/expert_imbalance", "memory/peak_bytes_largest_rank"),
)
STATISTICS = ("auxiliary loss", "z-loss", "entropy", "dropped fraction")
"""The columns of a layer's row in the table that is summed over ranks once a batch; its experts' loads follow."""
METRICS = (*VALIDATION, *TRAINING, "step", "epoch")
