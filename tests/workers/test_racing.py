"""Workers that race for the same environments, as real processes and threads, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.runtime import ROOT
from tests.embedded import EmbeddedCluster
from tests.migrated import put_database
from tests.portal.postgres import postgres_url

from .racing import PROCESSES, TURNS

__all__ = ["postgres_url"]
pytestmark = pytest.mark.integration


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    put_database(tmp_path / "race.sqlite3")
    return f"sqlite:///{tmp_path / 'race.sqlite3'}"


def test_messages_delivered_three_times_do_no_harm_and_a_lease_has_one_holder(url: str, tmp_path: Path, embedded: EmbeddedCluster) -> None:
    # One installation id: the namespaces of the other database's run are taken up.
    own = {"DATABASE_URL": url, "VAR_DIR": str(tmp_path / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings", "INSTALL_ID": "racing"}
    environment = os.environ | own
    command = [sys.executable, "-m", "tests.workers.racing", str(embedded.kubeconfig), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    storm = found["storm"]
    assert set(storm["words"]) <= {"done", "refused"}, done.stderr
    assert storm["history"] == [["requested", "queued", "provisioning", "running", "deleting", "deleted"]] * 3
    assert storm["worker_objects"] == 3 * 3, "a pod, a set and a service for each; nothing was made twice"
    assert (storm["left"], storm["used"]) == (0, 0)

    assert found["contention"] == {"held": PROCESSES * TURNS}, done.stderr
    assert found["killed"] == {"held": True, "early": 0, "taken_over": True}
