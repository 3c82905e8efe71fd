"""One installation for this folder, each of its processes started by itself: tests kill some, and start them again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.ops.client import Api
from tests.migrated import put_database
from tests.stack import Parts

CATALOGUE = Path(__file__).parent / "catalogue"


@pytest.fixture(scope="package")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    parts = Parts(tmp_path_factory.mktemp("parts") / "var", SWEEP_SECONDS="2")
    put_database(parts.var / "atelier.sqlite3")
    try:
        parts.start()
        parts.manage("load_catalogue", str(CATALOGUE))
        yield parts
    finally:
        parts.stop()


@pytest.fixture(scope="package")
def api(parts: Parts) -> Iterator[Api]:
    with Api(parts.url, parts.token()) as api:
        yield api
