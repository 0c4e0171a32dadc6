"""Plan: `python project/plan.py +experiment=tp4_ep4_pp4`.

Derives the strategy document of a layout and checks claims about it; needs no GPU, starts no process.
"""

import os
import sys
from pathlib import Path
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from project import command_line
from project.command_line.verbatim import verbatim
from project.preflight import plan as checks

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="plan")
def run(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from project.planner.run import plan, print_comparison

    command_line.check_job(cfg, os.environ, checks)
    if cfg.compare:
        print_comparison(Path(cfg.compare))
    else:
        config = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
        plan(config, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    sys.argv[1:] = verbatim(sys.argv[1:], paths=["compare", "document"])
    command_line.check(sys.argv[1:], CONFIGS, "plan", os.environ, checks=checks)
    run()


if __name__ == "__main__":
    main()
