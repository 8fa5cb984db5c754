"""What the parent process asks of its worker, as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from validation.microbench.blocks import Block, Machine, remaining
from validation.microbench.plan import plan


@dataclass(frozen=True, slots=True)
class Job:
    """One condition of a suite.

    `stop_at_s` is a time of the system clock (time.time()) or None; `later_s` the estimate for the conditions
    after this one. `store_prefix` is unique to one attempt.
    """

    suite: str
    condition: str
    conditions: tuple[str, ...]
    out: str
    device_type: str
    num_devices: int
    has_collectives: bool
    store_prefix: str
    only: str | None = None
    stop_at_s: float | None = None
    later_s: float = 0.0

    def to_line(self) -> str:
        """As JSON, without a newline."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Job:
        """From JSON."""
        data = json.loads(line)
        return cls(**{**data, "conditions": tuple(data["conditions"])})

    @property
    def machine(self) -> Machine:
        """What the plan depends on."""
        return Machine("cuda" if self.device_type == "cuda" else "cpu", self.num_devices, self.has_collectives)

    def all_blocks(self) -> list[Block]:
        """The whole suite, all conditions."""
        return plan(self.suite, self.machine, self.conditions)

    def blocks_left(self, done: set[str]) -> list[Block]:
        """What this condition still has to do."""
        mine = [block for block in self.all_blocks() if block.condition == self.condition]
        return remaining(mine, done, self.only)
