"""Sixteen writers, each a process, against one team's quota, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from portal.runtime import ROOT
from tests.portal.domain.test_races import postgres_url, url

__all__ = ["postgres_url", "url"]
WRITERS, LIMIT = 16, 24


def race(url: str, tmp_path: Path, attempts: int, *options: str) -> dict[str, Any]:
    environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(tmp_path / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    command = [sys.executable, "-m", "tests.portal.domain.quota_race", str(WRITERS), str(attempts), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_sixteen_writers_are_never_granted_more_than_there_is(url: str, tmp_path: Path) -> None:
    taking = race(url, tmp_path, 320, "fill")
    assert (taking["grants"], taking["held"]) == (LIMIT, LIMIT), "exactly what there is, and all of it"
    assert taking["peak"] <= LIMIT, "a writer that is through before another begins is not counted with it"
    assert set(taking["accounts"].values()) == {LIMIT}

    both = race(url, tmp_path, 2400)
    assert both["attempts"] == 2400
    assert both["peak"] <= LIMIT, "never more at once, by the clock of those who held them"
    assert LIMIT < both["grants"] < both["attempts"], "some were granted after others gave back, some were refused"
    assert set(both["accounts"].values()) == {both["held"]}, "nothing is lost and nothing doubled"
