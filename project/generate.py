"""Generate: `python project/generate.py checkpoint=outputs/train/... prompt="def "`.

Composes the configuration, checks it whole, and hands over.
"""

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from project import command_line
from project.command_line.verbatim import verbatim
from project.generation import checks

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="generate")
def run(cfg: DictConfig) -> None:
    from project.generation.run import generate

    generate(cfg)


def main() -> None:
    sys.argv[1:] = verbatim(sys.argv[1:], texts=["prompt"], paths=["checkpoint", "tokenizer"])
    command_line.check(sys.argv[1:], CONFIGS, "generate", os.environ, checks=checks)
    run()


if __name__ == "__main__":
    main()
