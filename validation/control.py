"""How the ranks of a run talk about what to do next: small JSON values through a c10d store.

No collective library is involved, so that a hung or missing NCCL cannot silence the ranks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT = timedelta(seconds=120)
"""How long a rank waits for the others before it gives up."""


@dataclass(slots=True)
class Control:
    """Agreement among `world_size` ranks; trivial for one.

    All ranks must call the same methods in the same order.
    """

    rank: int = 0
    world_size: int = 1
    store: Store | None = None
    base: Store | None = None
    """`store` without its prefix."""
    _step: int = field(default=0, init=False)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, on every rank, in rank order.

        Raises:
            RuntimeError: a rank did not answer within `TIMEOUT` (torch raises DistStoreError).
        """
        if self.store is None:
            return [value]
        step, self._step = self._step, self._step + 1
        self.store.set(f"{step}/{self.rank}", json.dumps(value))
        values = [json.loads(self.store.get(f"{step}/{rank}")) for rank in range(self.world_size)]
        # All ranks have answered this step, so all have read the one before.
        self.store.delete_key(f"{step - 1}/{self.rank}")
        return values

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self.gather(value if self.rank == 0 else None)[0]


def connect(environment: Mapping[str, str], prefix: str) -> Control:
    """Join the ranks that torchrun started (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), under a prefix.

    The store is served by torchrun's agent, or by the first process of rank 0 (`serve`).
    """
    world_size = int(environment.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return Control()
    rank = int(environment["RANK"])
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=TIMEOUT, wait_for_workers=False)
    return Control(rank, world_size, below(store, prefix), store)


def serve(environment: Mapping[str, str]) -> Store | None:
    """Serve the store from this process where nobody else does; the caller keeps the result alive."""
    if int(environment.get("WORLD_SIZE", "1")) == 1 or environment.get("RANK") != "0":
        return None
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == str(True):
        return None
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    return TCPStore(address, port, is_master=True, timeout=TIMEOUT, wait_for_workers=False)


def below(store: Store, prefix: str) -> Store:
    """The same store under a longer prefix."""
    return PrefixStore(prefix, store)
