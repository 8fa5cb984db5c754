"""`python -m kraken_sim.cli`, which is the command `kraken-sim`."""

from __future__ import annotations

import sys

from kraken_sim.cli import main

if __name__ == "__main__":
    sys.exit(main())
