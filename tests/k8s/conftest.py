"""One embedded cluster for the tests of the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.embedded import EmbeddedCluster


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    embedded = EmbeddedCluster(tmp_path_factory.mktemp("cluster"))
    try:
        embedded.start()
        yield embedded
    finally:
        embedded.stop()
