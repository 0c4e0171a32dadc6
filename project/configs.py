"""The folder of the configuration files, which Hydra's config groups and the claims of documents are read from.

In a checkout `packaged_configs` is a link to `configs/`; in an installed wheel it is a folder with the same files.
"""

from pathlib import Path

CONFIGS = Path(__file__).with_name("packaged_configs").resolve()
