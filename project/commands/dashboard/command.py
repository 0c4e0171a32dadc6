"""`project/dashboard.py`: lays out the workspace of a Weights & Biases project."""

import argparse
import json
import os

from dotenv import find_dotenv, load_dotenv

from project.compat.wandb_internals import workspace_json


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Lays out a W&B workspace for the runs of logger=wandb: layout comparison, expert health, "
        "pipeline, system. Needs pip install -e '.[dashboard]', and a key in WANDB_API_KEY or .env."
    )
    parser.add_argument("entity", help="the user or team that the project belongs to")
    parser.add_argument("--project", default="moe-parallel", help="the W&B project (%(default)s, as in logger.project)")
    parser.add_argument("--layers", type=int, default=8, help="how many layers have panels (%(default)s)")
    parser.add_argument("--experts", type=int, default=4, help="how many experts of each (%(default)s)")
    parser.add_argument("--ranks", type=int, default=16, help="how many ranks (%(default)s)")
    parser.add_argument("--print", action="store_true", help="print the workspace as JSON instead, without a server")
    asked = parser.parse_args()
    load_dotenv(find_dotenv(usecwd=True))
    if not asked.print and not os.environ.get("WANDB_API_KEY"):
        parser.error("there is no key: set WANDB_API_KEY, or put it into .env; --print needs none")
    try:
        from project.commands.dashboard.workspace import workspace
    except ModuleNotFoundError as missing:
        parser.error(f"{missing.name} is missing: pip install -e '.[dashboard]'")
    view = workspace(asked.entity, asked.project, asked.layers, asked.experts, asked.ranks)
    if asked.print:
        print(json.dumps(json.loads(workspace_json(view)), indent=2))
    else:
        print(view.save().url)
