"""`make fuzz`: the fuzzer again and again with fresh seeds; what fails is printed with how to repeat it.

Each round is the tests of files, command lines and calls (`tests/test_fuzz*.py`) with other examples.
A failure shows the file or the arguments that were drawn, and a line
`@reproduce_failure(...)` that repeats it when put above the test.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

TIMES: Final = 1
"""Examples of a round over those of the suite: a round of which the time is over says nothing, so it is short."""

_EXAMPLES: Final = re.compile(r"(\d+) passing, \d+ failing|(\d+) passing examples, (\d+) failing")


def main(minutes: float, *options: str) -> int:
    """Fuzzes for some minutes; 1 where something failed. `options` go to pytest, such as `-k profile`."""
    tests = [
        str(Path(__file__).with_name(name)) for name in ("test_fuzz.py", "test_fuzz_commands.py", "test_fuzz_api.py")
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--hypothesis-show-statistics",
        *tests,
        *options,
    ]
    end_s, failed, examples, rounds = time.monotonic() + 60.0 * minutes, 0, 0, 0
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            done = subprocess.run(
                command,
                env=os.environ | {"KRAKEN_SIM_FUZZ": str(TIMES)},
                capture_output=True,
                text=True,
                timeout=left_s,
            )
        except subprocess.TimeoutExpired:
            sys.stdout.write(f"{rounds} whole rounds; the time was over in the next one, of which nothing is said\n")
            break
        rounds += 1
        examples += sum(int(number) for found in _EXAMPLES.findall(done.stdout) for number in found if number)
        if done.returncode:
            failed += 1
            sys.stdout.write(done.stdout + done.stderr)
        sys.stdout.write(f"{rounds} rounds, {examples:,} examples, {failed} rounds with failures\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, *sys.argv[2:]))
