"""A few seeds of `make faults`, shortened: people at work, SIGKILLs, a lost queue, tasks that come three times, a cluster API with faults.

What counts is that everything comes to rest as it was asked for; how soon is what `make faults` measures.
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from tests.migrated import put_database
from tests.stack import wait_until

from .injuries import KINDS
from .installation import Installation
from .scenario import play

pytestmark = pytest.mark.integration
LIMIT = 180.0  # seconds; generous, for machines with other work to do


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(tmp_path_factory.mktemp("faults") / "var", SWEEP_SECONDS="5")
    put_database(installation.var / "atelier.sqlite3")
    try:
        installation.start()
        yield installation
    finally:
        installation.stop()


@pytest.mark.parametrize(("seed", "kinds"), [(1, ("kill",)), (2, ("kill", "proxy")), (3, ("kill", "flush", "treble"))])
def test_what_is_killed_and_hurt_comes_to_rest_as_it_was_asked_for(installation: Installation, seed: int, kinds: tuple[str, ...]) -> None:
    assert set(kinds) <= set(KINDS)
    row = play(installation, seed, limit=LIMIT, kinds=kinds, brief=True)
    assert row.injuries, "nothing was done to it"
    assert row.good, "\n".join([row.line(), *row.problems, "", (installation.var / "seeds" / f"{seed}.log").read_text()])
    if "treble" in kinds:
        assert installation.relay.delivered > 0


def test_what_forks_the_pool_has_no_connection_to_the_database(installation: Installation) -> None:
    """SQLite in a child would believe that it holds the locks of its parent; then others spoil the database. The clock's turns are moments."""
    wait_until(lambda: installation.works("worker"), "the worker")
    main, database = psutil.Process(installation.parts["worker"].pid), str(installation.var / "atelier.sqlite3")
    assert main.children(), "it has a pool"

    def holds() -> bool:
        return any(file.path.startswith(database) for file in main.open_files())

    held: list[bool] = []

    def seldom() -> bool:
        held.append(holds())
        return len(held) >= 40 and sum(held) < len(held) / 2

    wait_until(seldom, "the database to be let go of, most of the time")
