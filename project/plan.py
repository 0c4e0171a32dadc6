"""Plan: `python project/plan.py +experiment=tp4_ep4_pp4`.

Derives the strategy document of a layout and checks claims about it; with `search=true` finds the best layouts, with
`calibrate=true` measures this machine. Needs no GPU; only calibration starts processes.
"""

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from project.command_line.check import checked, stand_somewhere
from project.commands.plan.command import PLAN
from project.configs import CONFIGS
from project.spec.disk import NotWritten


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=PLAN.name)
def run(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from project.commands.plan.run import run_plan

    try:
        run_plan(cfg, Path(HydraConfig.get().runtime.output_dir), HydraConfig.get().overrides.task)
    except NotWritten as error:
        raise SystemExit(str(error)) from None


def main() -> None:
    stand_somewhere()
    sys.argv[1:] = checked(sys.argv[1:], PLAN, os.environ)
    run()


if __name__ == "__main__":
    main()
