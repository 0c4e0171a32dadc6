"""Plan: `python project/plan.py +experiment=tp4_ep4_pp4`.

Derives the strategy document of a layout and checks claims about it; with `search=true` finds the best layouts, with
`calibrate=true` measures this machine. Needs no GPU; only calibration starts processes.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from project import command_line
from project.command_line.verbatim import verbatim
from project.preflight import plan as checks
from project.preflight.plan import nothing_fits

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="plan")
def run(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from project.planner.run import plan, print_comparison, print_search, searched

    command_line.check_job(cfg, os.environ, checks)
    if cfg.compare:
        print_comparison(Path(cfg.compare))
        return
    folder, config = Path(HydraConfig.get().runtime.output_dir), OmegaConf.to_container(cfg, resolve=True)
    if cfg.calibrate:
        from project.calibration.run import calibrate

        calibrate(CONFIGS / "cluster", folder)
    elif cfg.search:
        found = searched(cast(dict[str, Any], config), train_command(HydraConfig.get().overrides.task, cfg))
        if not found.best:
            command_line.refuse([nothing_fits(found)], os.environ)
        print_search(found, folder)
    else:
        plan(cast(dict[str, Any], config), folder)


PLANS_OWN = ("search", "objective", "calibrate", "document", "compare", "cluster", "parallel", "trainer.precision")


def train_command(overrides: Sequence[str], cfg: DictConfig) -> str:
    """What of this command is `project/train.py`'s, its precision said, for it has another default; as a shell reads
    it."""
    keys = [(override.lstrip("+~").partition("=")[0], override) for override in overrides]
    kept = [
        override for key, override in keys if key not in PLANS_OWN and not key.startswith(("cluster.", "parallel."))
    ]
    words = ["python", "project/train.py", *kept, f"trainer.precision={cfg.trainer.precision}"]
    return shlex.join(words)


def main() -> None:
    sys.argv[1:] = verbatim(sys.argv[1:], paths=["compare", "document"])
    command_line.check(sys.argv[1:], CONFIGS, "plan", os.environ, checks=checks)
    run()


if __name__ == "__main__":
    main()
