"""Private names of torch, Lightning, Hydra and wandb that the project relies on, each behind a name that says what for.

No other room uses such a name; `tests/compat` says of each what we rely on, and fails when it changes.
"""
