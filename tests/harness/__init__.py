"""What several test files need, one idea a file.

Training on real ranks:

- `case`: a small model under a layout, its batches and its initial weights
- `trainer`: the arguments of every Trainer
- `training`: a case trained on the ranks of a pool, under plain `Trainer.fit`
- `oracle`: the same case on one rank, in fp64, with plain autograd
- `outcome`: what both yield, how ranks' outcomes become the whole model's, and how one is held against another
- `schedules`: a legal layout for every schedule
- `ranks`: pools of forked processes (the fixture `ranks`) that run a function on every rank
- `saving`: runs that write checkpoints and resume; `checkpoint_files`: a checkpoint without a run
- `measured`: runs that return spans or bytes kept for backward
- `a_run`, `reported_run`: whole run folders, for export and generation, and for the report's pages
- `staged_gloo`: a backend for ranks that share a GPU

Models: `tiny_module` (a few weights, for callbacks), `dense_gpt` (a user's own model), `mixtral` (`transformers`').

Commands as users run them: `command` (a process, its exit status and its run folder), `script` (jobs that train
nothing), `terminal` (Ctrl-C), `failures` (callbacks that make a rank fail), `sweep_folders` (sweeps that never ran).

Readers of others' formats: `browser` (pages), `wandb_file`, `lowering` (torch's simulation of a schedule).

`paths` has the repository's.
"""
