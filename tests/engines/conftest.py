"""One installation without the Hub for all tests of engines, and what a test needs of an engine that runs on it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s.local.runtimes import Images
from portal.ops.client import Api
from tests.migrated import put_database
from tests.stack import Parts, wait_until

CATALOGUE = Path(__file__).parent / "catalogue"
PATIENCE = 900  # seconds; JVMs and torch start slowly on a machine that does much else


class Portal(Parts):
    NAMES = ("redis", "cluster", "worker", "watcher", "web")

    def start(self, timeout: float = 240) -> float:
        put_database(self.var / "atelier.sqlite3")
        began = time.monotonic()
        for name in self.NAMES:
            self.start_part(name)
        self.manage("prepare", "--wait", "redis", "cluster", "web", "worker")
        self.manage("load_catalogue", str(CATALOGUE))
        return time.monotonic() - began


class Engine:
    """An environment made from a template, as its owner sees it."""

    def __init__(self, api: Api, identifier: str) -> None:
        self.api, self.id = api, identifier

    def wait(self, *states: str) -> dict[str, Any]:
        return self.api.wait_state(self.id, *states, timeout=PATIENCE)

    def addresses(self, role: str) -> list[str]:
        """Of the replicas of a role that are ready."""
        return [one["address"] for one in self.api.environment(self.id)["replicas"] if one["role"] == role and one["ready"]]

    def address(self, role: str) -> str:
        return self.addresses(role)[0]

    def scale(self, role: str, workers: int) -> None:
        """To `workers` replicas, all of which are ready when it returns, and no others there."""
        self.api.call("PATCH", f"/environments/{self.id}", json={"workers": workers})
        wait_until(lambda: [one["ready"] for one in self._replicas(role)] == [True] * workers, f"{workers} replicas of {role}", PATIENCE)

    def _replicas(self, role: str) -> list[dict[str, Any]]:
        return [one for one in self.api.environment(self.id)["replicas"] if one["role"] == role]

    def log(self, role: str, *wanted: str) -> str:
        """What a role's replicas have printed, as soon as every text of `wanted` is in it."""

        def printed() -> str:
            names = [one["name"] for one in self._replicas(role)] or [""]
            text = "".join(self.api.call("GET", f"/environments/{self.id}/logs", params={"replica": name} if name else {}) for name in names)
            return text if all(part in text for part in wanted) else ""

        return wait_until(printed, f"{wanted} in the log of {role}", PATIENCE)

    def delete(self) -> None:
        self.api.call("DELETE", f"/environments/{self.id}", params={"purge": "true"})
        wait_until(lambda: self.api.environment(self.id)["state"] == "deleted", "teardown", PATIENCE)


@pytest.fixture(scope="session")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    portal = Portal(tmp_path_factory.mktemp("engines") / "var", SWEEP_SECONDS="2")
    try:
        portal.start()
        yield portal
    finally:
        portal.stop()


@pytest.fixture(scope="session")
def api(portal: Portal) -> Iterator[Api]:
    with Api(portal.url, portal.token()) as api:
        yield api


@pytest.fixture
def launch(request: pytest.FixtureRequest) -> Iterator[Callable[..., Engine]]:
    """`launch(template, **params)`: a new environment of the tiny flavor, deleted when the test ends."""
    made: list[Engine] = []

    def start(template: str, **params: Any) -> Engine:
        api: Api = request.getfixturevalue("api")
        body = {"name": template, "template": template, "flavor": "engine-tiny", "team": "vision", "params": params}
        made.append(Engine(api, api.call("POST", "/environments", json=body)["id"]))
        return made[-1]

    yield start
    for engine in made:
        engine.delete()


def needs(image: str, *programs: str) -> Any:
    """Skips a test where the engine behind `image` is not installed. In CI nothing is skipped: there it fails, with the reason."""
    runtime = Images.load(None).find(image)
    reason = runtime.missing() if runtime else f"no local runtime for {image}"
    missing = [program for program in programs if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")]
    if missing:
        reason = f"no {', '.join(missing)} on this machine"
    return pytest.mark.skipif(bool(reason) and not os.environ.get("CI"), reason=reason or "installed")
