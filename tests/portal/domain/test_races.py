"""Several processes at once, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.runtime import ROOT
from tests.portal.domain.race import FIT
from tests.portal.postgres import postgres_url

__all__ = ["postgres_url"]
PROCESSES, THREADS = 2, 8


class Arena:
    """A database of its own and processes that compete for it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.goes = folder, 0
        self.environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(folder / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}

    def _start(self, *args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.portal.domain.race", *args]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *args: str) -> str:
        process = self._start(*args)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return out.strip()

    def compete(self, mode: str, *args: str) -> list[str]:
        """Start all processes, let them loose together, and collect every thread's word."""
        self.goes += 1
        go = self.folder / f"go-{self.goes}"
        processes = [self._start(mode, str(THREADS), str(go), *args) for _ in range(PROCESSES)]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline().strip() == "waiting", process.communicate(timeout=60)[1]
            go.touch()
            results = [process.communicate(timeout=240) for process in processes]
        finally:
            for process in processes:
                process.kill()
        words = [word for out, _ in results for word in out.split()]
        assert len(words) == PROCESSES * THREADS, results
        return words


@pytest.fixture(params=["sqlite", "postgresql"])
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Arena:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'race.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres_url")
    arena = Arena(tmp_path, url)
    arena.run("setup")
    return arena


def test_sixteen_requests_at_once_never_pass_a_limit_and_a_storm_leaves_no_drift(arena: Arena) -> None:
    words = arena.compete("request")
    assert sorted(words) == ["exceeded"] * (PROCESSES * THREADS - FIT) + ["made"] * FIT
    assert arena.run("report") == f"used={FIT * 1000} held={FIT * 1000} drifts=0"

    # The failure of one makes room for one, for which sixteen then compete with requests and starts.
    assert sorted(arena.compete("storm")) == ["late"] * (PROCESSES * THREADS - 1) + ["won"]
    used, held, drifts = (int(part.split("=")[1]) for part in arena.run("report").split())
    assert used == held
    assert used <= FIT * 1000
    assert drifts == 0
