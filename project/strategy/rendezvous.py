"""Where ranks that torchrun started find one another, also after it has started them again."""

from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.constants import default_pg_timeout


def store_of_this_attempt(environ: Mapping[str, str], timeout: timedelta | None) -> dist.Store | None:
    """torchrun's own store, but with keys of their own for each restart: by its default rendezvous it keeps the store,
    and ranks of the second attempt would look for those of the first under the addresses that they left there. None
    where it was not torchrun that started this process."""
    if environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    wait = timeout or default_pg_timeout
    store = dist.TCPStore(address, port, int(environ["WORLD_SIZE"]), is_master=False, timeout=wait)
    return dist.PrefixStore(f"attempt {environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
