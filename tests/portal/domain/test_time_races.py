"""Sixteen at once who answer the same question, or run the same timers, on SQLite and on PostgreSQL."""

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
AT_ONCE = 16


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    put_database(tmp_path / "race.sqlite3")
    return f"sqlite:///{tmp_path / 'race.sqlite3'}"


def test_of_many_answers_at_once_one_counts_and_timers_at_once_act_once(url: str, tmp_path: Path) -> None:
    environment = os.environ | {"DATABASE_URL": url, "VAR_DIR": str(tmp_path / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    command = [sys.executable, "-m", "tests.portal.domain.race_time"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    answers, after, turns, turned = json.loads(done.stdout)

    (won,) = [word for word in answers if word != "conflict"]
    assert answers.count("conflict") == AT_ONCE - 1, done.stderr
    assert after == {
        "status": won,
        "state": "queued" if won == "approved" else "failed",
        "held": won == "approved",
        "codes": [won.title()],
        "drifts": 0,
    }
    assert turns == ["done"] * AT_ONCE, done.stderr
    each = 6  # events, and notifications of the owner
    assert turned == {code: [each, each] for code in ("Expired", "ExpirySoon", "Schedule", "Preempted", "StoppedTooLong")} | {"left": 0}, done.stderr
