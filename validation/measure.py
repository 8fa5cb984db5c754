"""Measures this machine and writes a measurement file.

    torchrun --nproc-per-node=2 -m validation.measure --suite quick --out measured.jsonl
    python -m validation.measure --suite full --out measured.jsonl          # one device

A run that is cut short keeps what it has; the same command goes on where it stopped.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.measurements.records.record import NoteRecord
from kraken_sim.measurements.schema import CONDITIONS, MeasurementWarning
from validation import machine
from validation.arguments import Arguments, parse
from validation.children import Child, outcome_of
from validation.control import Control, below, connect, serve
from validation.job import Job
from validation.microbench.blocks import START_S, Machine, remaining
from validation.microbench.plan import default_conditions, plan
from validation.progress import duration, say
from validation.store import append, resume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.measurements.records.record import Record
    from validation.microbench.blocks import Block

MAX_RESTARTS = 2
_LEAST_SHARE = 0.4


class Measurement:
    """The run as one rank's parent process sees it; rank 0 reads and writes the file."""

    def __init__(self, arguments: Arguments, control: Control, runtime: machine.Runtime) -> None:
        self.arguments, self.control, self.runtime = arguments, control, runtime
        self.begun_s = time.time()
        together = runtime.has_collectives and control.world_size > 1
        self.machine = Machine("cuda" if runtime.device_type == "cuda" else "cpu", control.world_size, together)
        self.conditions = self._conditions()
        self.blocks = plan(arguments.suite, self.machine, self.conditions)
        self.done: set[str] = set()
        self.failures: list[str] = []
        self.next_child: Child | None = None
        self.attempts = 0

    def _conditions(self) -> list[str]:
        names = default_conditions(self.arguments.suite, self.machine, CONDITIONS)
        asked = self.arguments.conditions
        if asked is None:
            return names
        possible = names if self.machine.device_type == "cpu" or len(names) == 1 else [*CONDITIONS]
        kept = [name for name in asked if name in possible]
        if not kept:
            message = f"none of them can be measured here, only {', '.join(possible)}"
            raise InputError.single("--conditions", message, ",".join(asked), example=possible[0])
        return kept

    def run(self) -> int:
        """The exit code: 0 when all is measured or the deadline came, 1 when a condition failed."""
        self._explain()
        self._open_file()
        todo = [name for name in self.conditions if self._left(name)]
        for index, condition in enumerate(todo):
            later = todo[index + 1 :]
            if not self._run_condition(condition, later):
                break
        # What the reserve for later conditions left undone.
        for condition in todo:
            if self._left(condition) and not self.failures and self._time_left_s() > START_S + 10.0:
                self._run_condition(condition, [])
        if self.next_child is not None:
            self.next_child.stop()
        self._summarise()
        return 1 if self.failures else 0

    def _explain(self) -> None:
        if self.control.rank:
            return
        where = f"{self.control.world_size} x {'GPU' if self.machine.device_type == 'cuda' else 'CPU process'}"
        say(f"measuring {self.arguments.suite} on {where} into {self.arguments.out}")
        if self.machine.device_type == "cpu":
            say("no GPU that torch can use: gloo on CPUs, tiny shapes, recorded as device cpu")
        elif self.control.world_size == 1:
            say("one GPU: collectives and pairs are left out, the rest is measured")
            if self.runtime.num_gpus > 1:
                say(f"for all GPUs start with torchrun --nproc-per-node={self.runtime.num_gpus}")
        elif not self.runtime.has_collectives:
            say("this torch has no NCCL: collectives and pairs are left out, the rest is measured")

    def _open_file(self) -> None:
        """Rank 0 prepares the file; all ranks end with its error, if there is one."""
        error: InputError | None = None
        if self.control.rank == 0:
            header = machine.describe(
                self.runtime.device_type, self.control.world_size, self.arguments.suite, self.conditions
            )
            try:
                self._reread(resume(self.arguments.out, header))
            except (InputError, OSError) as found:
                error = (
                    found
                    if isinstance(found, InputError)
                    else InputError.single("--out", found.strerror or type(found).__name__, str(self.arguments.out))
                )
            self.header = header
        if not self.control.broadcast(error is None):
            raise error if error is not None else InputError.single("--out", "rank 0 cannot use the file")
        self._share_done()
        total = sum(len(block.cases) for block in remaining(self.blocks, set(), self.arguments.only))
        left = sum(len(block.cases) for name in self.conditions for block in self._left(name))
        if self.control.rank == 0:
            estimate = duration(sum(START_S + self._estimate_s(name) for name in self.conditions if self._left(name)))
            say(f"{total - left} of {total} cases are there, {left} to do, about {estimate}")

    def _reread(self, records: Sequence[Record]) -> None:
        self.done = {record.key for record in records}

    def _share_done(self) -> None:
        self.done = set(self.control.broadcast(sorted(self.done)))

    def _left(self, condition: str) -> list[Block]:
        mine = [block for block in self.blocks if block.condition == condition]
        return remaining(mine, self.done, self.arguments.only)

    def _estimate_s(self, condition: str) -> float:
        return sum(block.estimate_s(self.control.world_size) for block in self._left(condition))

    def _time_left_s(self) -> float:
        """The same on all ranks; infinite without a deadline."""
        deadline_s = self.arguments.deadline_s
        left = float("inf") if deadline_s is None else self.begun_s + deadline_s - time.time()
        return float(self.control.broadcast(left))

    def _run_condition(self, condition: str, later: Sequence[str]) -> bool:
        """False when there is no time for it."""
        for attempt in range(1 + MAX_RESTARTS):
            left_s, known = self._time_left_s(), len(self.done)
            if left_s < 1.2 * START_S:
                return False
            reserve_s = sum(START_S + self._estimate_s(name) for name in later)
            stop_in_s = max(left_s - reserve_s, _LEAST_SHARE * left_s)
            codes = self._run_child(condition, later, stop_in_s, reserve_s)
            self._after_child()
            if not any(codes):
                return True
            # Without anything new, or where the file can't be written, another start would end the same way.
            again = attempt < MAX_RESTARTS and len(self.done) > known and InputError.exit_code not in codes
            if self.control.rank == 0:
                say(f"{condition}: {outcome_of(codes)}, {'going on' if again else 'given up'}")
            if not self._left(condition):
                return True
            if not again:
                break
        self.failures.append(condition)
        return True

    def _run_child(self, condition: str, later: Sequence[str], stop_in_s: float, later_s: float) -> list[int]:
        child = self.next_child
        if child is None or child.condition != condition:
            child = Child(condition)
        self.next_child = None
        self.attempts += 1
        prefix = f"{condition}/{self.attempts}"
        job = Job(
            suite=self.arguments.suite,
            condition=condition,
            conditions=tuple(self.conditions),
            out=str(self.arguments.out),
            device_type=self.machine.device_type,
            num_devices=self.machine.num_devices,
            has_collectives=self.machine.has_collectives,
            store_prefix=prefix,
            only=self.arguments.only,
            stop_at_s=time.time() + stop_in_s if stop_in_s != float("inf") else None,
            later_s=later_s,
        )
        child.go(job)
        if later and self.machine.device_type == "cuda" and (os.cpu_count() or 1) >= 4 * self.control.world_size:
            self.next_child = Child(later[0])
        code = child.wait(below(self.control.base, f"{prefix}/ends") if self.control.base is not None else None)
        self._note_failure(prefix)
        return [int(value) for value in self.control.gather(code)]

    def _note_failure(self, prefix: str) -> None:
        """What a rank's worker left in the store before it went, in case rank 0's worker could not write it."""
        self.failed: NoteRecord | None = None
        if self.control.base is None:
            return
        store = below(self.control.base, prefix)
        if store.check(["failed"]):
            self.failed = NoteRecord.model_validate_json(store.get("failed"))

    def _after_child(self) -> None:
        if self.control.rank == 0:
            self._reread(resume(self.arguments.out, self.header, retry_failed=False))
            if self.failed is not None and self.failed.key not in self.done:
                append(self.arguments.out, [self.failed])
                self.done.add(self.failed.key)
        self._share_done()

    def _summarise(self) -> None:
        if self.control.rank:
            return
        records = resume(self.arguments.out, self.header, retry_failed=False)
        kinds = Counter(record.kind for record in records if not isinstance(record, NoteRecord))
        say("measured: " + (", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"))
        notes = [record for record in records if isinstance(record, NoteRecord)]
        for status in ("skipped", "failed"):
            chosen = [note for note in notes if note.status == status]
            if chosen:
                say(f"{status}: {len(chosen)}, for example {chosen[0].of}: {chosen[0].message}")
        for name in self.conditions:
            left = Counter(case.kind for block in self._left(name) for case in block.cases)
            if left:
                say(f"left in {name}: " + ", ".join(f"{count} {kind}" for kind, count in left.items()))
        if any(self._left(name) for name in self.conditions):
            say("the same command goes on from here")
        say(f"took {duration(time.time() - self.begun_s)}; the file is {self.arguments.out}")


def measure(argv: Sequence[str] | None = None) -> int:
    """Run a measurement; the exit code.

    Raises:
        InputError: wrong arguments, more ranks than GPUs, or a file that cannot be continued.
    """
    arguments = parse(argv)
    server = serve(os.environ)
    control = connect(os.environ, "measure")
    runtime = machine.find_runtime()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", control.world_size))
    if runtime.device_type == "cuda" and local > runtime.num_gpus:
        message = f"this machine has {runtime.num_gpus} GPU{'s' if runtime.num_gpus > 1 else ''}"
        raise InputError.single("--nproc-per-node", message, local, str(runtime.num_gpus))
    code = Measurement(arguments, control, runtime).run()
    control.gather("end")
    del server
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """`measure` with errors said in words."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return measure(argv)
    except KrakenSimError as error:
        if int(os.environ.get("RANK", "0")) == 0:
            say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, MeasurementWarning):
        say(f"warning: {message}")


if __name__ == "__main__":
    sys.exit(main())
