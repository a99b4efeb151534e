"""Every preset and the near baselines in worlds that they were tuned on and that they were not.

    python3 run.py benchmark worlds [--worlds NAME ...] [--methods NAME ...] [--holes NAME ...] [--prompts WORDS ...]
        [--pictures 16] [--fills 16] [--slow 4] [--together 4] [--rows 8] [--packs FOLDER ...] [--quick]

Everything runs through the host, as in `benchmark toy`; every part is kept in .cache/benchmarks. Worlds whose files are
not there are left out, and the command that makes them is said.
"""

import sys

from benchmarks.worlds.benchmark import BENCHMARK

if __name__ == "__main__":
    sys.exit(BENCHMARK.main(__doc__))
