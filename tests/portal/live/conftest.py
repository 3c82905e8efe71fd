"""One portal for this folder's tests, with a log API that the tests command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.k8s.log_server import LogServer

from .site import Site, launch


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("live")
    site = Site(folder / "var", folder / "kubeconfig")
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
async def cluster(site: Site) -> AsyncIterator[LogServer]:
    """The log API of `site`, a new one for each test: the portal notices that its kubeconfig changed."""
    server = LogServer()
    await server.start(Path(site.env["KUBECONFIG"]).parent)
    yield server
    await server.stop()


@pytest.fixture
def environment(site: Site) -> Iterator[str]:
    """One of lena's that is running."""
    environment = launch(site)
    yield environment
    for to in ("deleting", "deleted"):  # gives its quota back
        site.rows("move", environment=environment, to=to)
