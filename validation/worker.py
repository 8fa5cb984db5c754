"""One rank of one condition, in a process of its own: NCCL reads its environment once a process.

Started by `validation.measure`, never by hand. It imports torch, waits for its job on standard input (so the
next condition's processes can start up while this one measures), measures, and (rank 0) writes to the file. When
standard input closes, its parent is gone and it ends.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist

from kraken_sim.errors import InputError
from kraken_sim.measurements.records.launched import KernelsCase
from kraken_sim.measurements.records.passes import PassCase
from kraken_sim.measurements.schema import read_measurements
from validation.control import TIMEOUT, Control, connect
from validation.job import Job
from validation.microbench import kernels
from validation.microbench.bench import Outcome
from validation.microbench.blocks import SECONDS
from validation.microbench.opening import open_bench
from validation.microbench.runners import RUN, Attempt, Ranks, attempt, record_of
from validation.progress import Reporter, say
from validation.store import append
from validation.watchdog import LOST, Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.measurements.records.base import Case
    from kraken_sim.measurements.records.record import Record
    from validation.microbench.bench import Bench
    from validation.microbench.blocks import Block

_ANSWER: Final = timedelta(seconds=20)
_MARGIN_S: Final = 2.0


def _target_key(case: Case) -> str:
    """The key of a case, or of the case whose kernels it asks for."""
    return case.of if isinstance(case, KernelsCase) else case.key


class LostError(Exception):
    """This process cannot go on; another one can."""


class Worker:
    """Runs the blocks of a job."""

    def __init__(self, job: Job, control: Control, bench: Bench, watchdog: Watchdog) -> None:
        self.job, self.control, self.bench, self.watchdog = job, control, bench, watchdog
        self.path = Path(job.out)
        self.targets = {case.key: case for block in job.all_blocks() for case in block.cases}
        self.spent: dict[str, list[float]] = {}

    def run(self) -> None:
        """All blocks, until done or until the time is up."""
        blocks = self.job.blocks_left(self._done())
        total = sum(len(block.cases) for block in blocks)
        shown = self.control.rank == 0
        with Reporter(self.job.condition, total, self.job.later_s, shown=shown) as reporter:
            for index, block in enumerate(blocks):
                if self._time_is_up(self._estimate_s(block)):
                    return
                begun = time.perf_counter()
                complete = self._run_block(block)
                self._learn(block, time.perf_counter() - begun)
                left_s = sum(self._estimate_s(later) for later in blocks[index + 1 :])
                reporter.advance(len(block.cases), block.kind, left_s)
                if not complete:
                    return

    def _done(self) -> set[str]:
        keys: list[str] = []
        if self.control.rank == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                keys = [record.key for record in read_measurements(self.path).records]
        return set(self.control.broadcast(keys))

    def _time_is_up(self, needed_s: float) -> bool:
        stop_at_s = self.job.stop_at_s
        up = stop_at_s is not None and time.time() + needed_s + _MARGIN_S > stop_at_s
        return bool(self.control.broadcast(up))

    def _estimate_s(self, block: Block) -> float:
        guess = block.estimate_s(self.control.world_size)
        spent, guessed = self.spent.get(block.kind, (0.0, 0.0))
        return guess * (spent / guessed) if guessed > 0.0 else guess

    def _learn(self, block: Block, seconds: float) -> None:
        entry = self.spent.setdefault(block.kind, [0.0, 0.0])
        entry[0] += seconds
        entry[1] += block.estimate_s(self.control.world_size)

    def _run_block(self, block: Block) -> bool:
        """Whether the block is complete; False when the time was up within it."""
        if block.kind == "kernels":
            self._profile(block)
        elif block.kind == "pass":
            return self._run_passes(block)
        elif block.collective:
            return self._run_together(block)
        else:
            self._run_apart(block.cases)
        return True

    def _run_apart(self, cases: Sequence[Case]) -> None:
        """Each rank its part of the cases."""
        rank, size = self.control.rank, self.control.world_size
        mine: dict[str, Any] = {}
        for case in cases[rank::size]:
            tried = attempt(self.bench, lambda case=case: RUN[case.kind](self.bench, case))  # type: ignore[misc]
            mine[case.key] = tried.to_json()
            self.watchdog.alive()
            if not tried.healthy:
                break
        gathered = self.control.gather(mine)
        records, healthy = [], True
        for index, case in enumerate(cases):
            data = gathered[index % size].get(case.key)
            if data is not None:
                one = Attempt.from_json(data)
                healthy = healthy and one.healthy
                records.append(record_of(case, Ranks({index % size: one})))
        self._write(records)
        if not healthy:
            raise LostError("a device does not work any more")

    def _run_together(self, block: Block) -> bool:
        """All ranks the same case; every rank learns how the others fared before the next."""
        for case in block.cases:
            if self._time_is_up(SECONDS[case.kind]):
                return False
            self._conclude(case, attempt(self.bench, lambda case=case: RUN[case.kind](self.bench, case)))  # type: ignore[misc]
        return True

    def _conclude(self, case: Case, mine: Attempt) -> None:
        ranks = self._everyone(case, mine)
        self._write([record_of(case, ranks)])
        self.watchdog.alive()
        someone_is_out_of_step = ranks.worst[1].outcome is None and not ranks.all_failed_alike
        if not ranks.healthy or someone_is_out_of_step:
            raise LostError(f"{case.key}: {ranks.worst[1].message}")
        if ranks.worst[1].outcome is None:
            self.bench.memo.clear()

    def _everyone(self, case: Case, mine: Attempt) -> Ranks:
        if mine.outcome is None and self.control.store is not None:
            # The others may hang in a collective that this rank left: they get little time to answer.
            note = record_of(case, Ranks({self.control.rank: mine}))
            self.control.store.set("failed", note.model_dump_json())
            self.control.store.set_timeout(_ANSWER)
        gathered = self.control.gather(mine.to_json())
        if self.control.store is not None:
            self.control.store.set_timeout(TIMEOUT)
        return Ranks({rank: Attempt.from_json(data) for rank, data in enumerate(gathered)})

    def _run_passes(self, block: Block) -> bool:
        from validation.microbench import whole_pass

        targets = [self.targets[_target_key(case)] for case in block.cases]
        passes = [case for case in targets if isinstance(case, PassCase)]
        with whole_pass.model_of(self.bench, passes) as model:
            for case, target in zip(block.cases, passes, strict=True):
                if self._time_is_up(SECONDS["pass"]):
                    return False
                measure = model.kernels if isinstance(case, KernelsCase) else model.time
                self._conclude(case, attempt(self.bench, lambda run=measure, one=target: run(one)))  # type: ignore[misc]
        return True

    def _profile(self, block: Block) -> None:
        """Look at kernels; a collective block on all ranks, of which rank 0 reports."""
        rank, size = self.control.rank, self.control.world_size
        cases = block.cases if block.collective else block.cases[rank::size]
        targets = [self.targets[case.key.removeprefix("kernels/")] for case in cases]
        found: dict[str, Any] = {}

        def measure() -> Outcome:
            by_key = kernels.profile(self.bench, targets)
            found.update({key: [one.model_dump() for one in seen] for key, seen in by_key.items()})
            return Outcome({})

        tried = attempt(self.bench, measure)
        self.watchdog.alive()
        gathered = self.control.gather({"tried": tried.to_json(), "found": found})
        records = []
        for index, case in enumerate(block.cases):
            source = gathered[0 if block.collective else index % size]
            one, seen = Attempt.from_json(source["tried"]), source["found"].get(case.key.removeprefix("kernels/"))
            if one.outcome is not None:
                given = Outcome({}, {"kernels": seen}) if seen else None
                one = Attempt(given, "ok" if seen else "skipped", "" if seen else "no kernels seen")
            records.append(record_of(case, Ranks({0: one})))
        self._write(records)
        if not all(Attempt.from_json(source["tried"]).healthy for source in gathered):
            raise LostError("a device does not work any more")

    def _write(self, records: Sequence[Record]) -> None:
        if self.control.rank == 0 and records:
            append(self.path, records)


def main() -> int:
    """Wait for a job on standard input and do it."""
    line = sys.stdin.readline()
    if not line.strip():
        return 0
    job = Job.from_line(line)
    watchdog = Watchdog()
    watchdog.start()
    torch.set_grad_enabled(False)
    control = connect(os.environ, job.store_prefix)
    try:
        with open_bench(job, control) as bench, torch.inference_mode():
            Worker(job, control, bench, watchdog).run()
            control.gather("done")
    except LostError as error:
        say(f"{job.condition}, rank {control.rank}: {error}")
        return LOST
    except dist.DistError as error:
        say(f"{job.condition}, rank {control.rank}: {type(error).__name__}: {error}")
        return LOST
    except InputError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: finalising torch can hang in communicators whose peers are gone.
    os._exit(code)
