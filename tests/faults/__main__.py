"""`make faults` (python -m tests.faults): seeds one after the other, and a table. See docs/faults.md."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from .injuries import KINDS
from .installation import Installation
from .scenario import HEAD, Row, play

GOAL = 30.0  # seconds from the last fault


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="how many (default: 50)")
    parser.add_argument("--first", type=int, default=1, help="the first one (default: 1)")
    parser.add_argument("--fresh", type=int, default=25, help="a new installation after so many (default: 25)")
    parser.add_argument("--kinds", default="", help=f"do these in every seed, of {', '.join(KINDS)} (default: by seed)")
    parser.add_argument("--limit", type=float, default=180.0, help="seconds after which a seed has failed (default: 180)")
    parser.add_argument("--keep", type=Path, help="keep the installations' folders here")
    parser.add_argument("--verbose", action="store_true", help="tell what happens")
    given = parser.parse_args()
    kinds = tuple(given.kinds.split(",")) if given.kinds else None
    root = given.keep or Path(tempfile.mkdtemp(prefix="atelier-faults."))
    seeds = list(range(given.first, given.first + given.seeds))
    began, load = time.monotonic(), os.getloadavg()[0]
    rows: list[Row] = []
    print(HEAD, flush=True)
    for start in range(0, len(seeds), given.fresh):
        batch = seeds[start : start + given.fresh]
        installation = Installation(root / f"from-{batch[0]}", seed=batch[0])
        try:
            print(f"{'':6}an installation, up after {installation.start():.1f} s", flush=True)
            for seed in batch:
                rows.append(play(installation, seed, limit=given.limit, kinds=kinds, echo=(lambda line: print(line, flush=True)) if given.verbose else None))
                print(rows[-1].line(), *[f"        {problem}" for problem in rows[-1].problems], sep="\n", flush=True)
        finally:
            installation.stop()
    print(summary(rows, time.monotonic() - began, load))
    good = all(row.good for row in rows)
    if given.keep is None and good:
        shutil.rmtree(root, ignore_errors=True)
    elif not good:
        print(f"What happened, and every process's output: {root}")
    return 0 if good else 1


def summary(rows: list[Row], seconds: float, load: float) -> str:
    """The last lines of the table."""
    times = [row.seconds for row in rows if row.seconds is not None]
    good = sum(row.good for row in rows)
    within = sum(value <= GOAL for value in times)
    faults, asked = sum(len(row.injuries) for row in rows), sum(row.asked for row in rows)
    lines = ["", f"{good} of {len(rows)} seeds converged with nothing lost, doubled or left over; {faults} faults, {asked} wishes."]
    if times:
        lines.append(
            f"Seconds from the last fault until everything was as asked: median {statistics.median(times):.1f}, longest {max(times):.1f}; "
            f"{within} of {len(rows)} within {GOAL:.0f} s."
        )
    starts = [row.up for row in rows if row.up is not None]
    if starts:
        lines.append(f"Of these, until every process had started again: median {statistics.median(starts):.1f}, longest {max(starts):.1f}.")
    lines.append(f"Took {seconds / 60:.0f} min on {os.cpu_count()} processors; load average before {load:.1f}, after {os.getloadavg()[0]:.1f}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
