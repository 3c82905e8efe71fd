"""Sixteen at once, in two processes, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.runtime import ROOT
from tests.migrated import put_database
from tests.portal.postgres import postgres_url

__all__ = ["postgres_url"]
AT_ONCE, FIT = 16, 5


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    put_database(tmp_path / "race.sqlite3")
    return f"sqlite:///{tmp_path / 'race.sqlite3'}"


def test_sixteen_requests_at_once_never_pass_a_limit_and_a_storm_leaves_no_drift(url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(tmp_path / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    command = [sys.executable, "-m", "tests.portal.domain.race"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    requests, after_requests, storm, after_storm = json.loads(done.stdout)

    assert requests == ["exceeded"] * (AT_ONCE - FIT) + ["made"] * FIT, done.stderr
    assert after_requests == {"used": FIT * 1000, "held": FIT * 1000, "drifts": 0}

    # Everybody moves the oldest to failed and one wins; that makes room for one, for which requests and starts then compete.
    assert storm == ["late"] * (AT_ONCE - 1) + ["won"], done.stderr
    assert after_storm["used"] == after_storm["held"] <= FIT * 1000
    assert after_storm["drifts"] == 0
