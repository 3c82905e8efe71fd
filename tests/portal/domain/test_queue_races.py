"""Two passes at once never admit twice into the same room, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.runtime import ROOT
from tests.portal.postgres import postgres_url

__all__ = ["postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    return f"sqlite:///{tmp_path / 'race.sqlite3'}" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def test_sixteen_looks_at_once_never_give_the_same_room_twice(url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(tmp_path / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    command = [sys.executable, "-m", "tests.portal.domain.queue_race"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    words, after, pressed = json.loads(done.stdout)
    assert words == ["done"] * 16, done.stderr
    assert after["nodes"] == {"a": 2, "b": 3}, "as much as there is and no more"
    assert after["admitted"] == after["usage"] == 5
    assert after["positions"] == list(range(1, 20))
    assert pressed == {"marked": 1, "grace": True, "position": 1, "range": True}
