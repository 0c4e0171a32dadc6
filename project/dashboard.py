"""Lay out the W&B workspace: `python project/dashboard.py ENTITY`, with the key in WANDB_API_KEY or `.env`."""

from project.commands.dashboard.command import main

if __name__ == "__main__":
    main()
