"""A W&B workspace as the server would receive it."""

from typing import Any


def workspace_json(workspace: Any) -> str:
    """Returns the specification of a `wandb_workspaces` workspace as JSON, without asking the server."""
    return workspace._to_model().spec.model_dump_json(by_alias=True)
