"""`make bench [ONLY=name,...]`: measurements on this machine, the peer beside ours, printed as a table.

Never part of the test suite: these figures depend on the machine and on what else it does.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from . import coldstart, dask, logs, notebook, objects, queue, quota, startup, watcher
from .common import Row

BENCHES = {
    "startup": startup.measure,
    "objects": objects.measure,
    "logs": logs.measure,
    "notebook": notebook.measure,
    "dask": dask.measure,
    "coldstart": coldstart.measure,
    "watcher": watcher.measure,
    "queue": queue.measure,
    "quota": quota.measure,
}


def figure(values: list[float]) -> str:
    """Median and range in the row's unit."""
    return f"{statistics.median(values):9.3f}  [{min(values):.3f} - {max(values):.3f}]"


def main() -> None:
    only = [name for name in os.environ.get("ONLY", "").split(",") if name] or list(BENCHES)
    runs = int(os.environ.get("RUNS", "5"))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as folder:
        for name in only:
            print(f"measuring {name} ...", flush=True)
            rows += BENCHES[name](Path(folder) / name, runs)
    print(f"\n{'what':44} {'ours: median [min - max] s':34} {'peer: median [min - max] s':34} {'ratio':>6}  goal")
    for row in rows:
        ratio = f"{statistics.median(row.ours) / statistics.median(row.peer):6.2f}" if row.peer else "     -"
        print(f"{row.what:44} {figure(row.ours):34} {figure(row.peer) if row.peer else '-':34} {ratio}  {row.goal}")


if __name__ == "__main__":
    main()
