"""Writers that compete for the quota of one team in the database in DATABASE_URL.

`python -m tests.portal.domain.quota_race WRITERS ATTEMPTS [bare | atomic] [fill]`

Each is a process with a user of its own. It reserves what a notebook with an accelerator takes, each time in a transaction, and now and then
gives one back; with `fill` it only takes. Prints JSON: attempts, grants, seconds, the most that was held at once, what is held at the end, and
the accounts. `bare` sends the very statement of the ledger through the database's driver, without anything of ours around it; `atomic` does the same inside
Django's `transaction.atomic()`: the floor of whatever is a verb here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from portal.celery import app  # noqa: E402
from portal.domain import services  # noqa: E402
from portal.domain.errors import QuotaExceeded  # noqa: E402
from portal.domain.models import Membership, Quota, Team, User  # noqa: E402
from portal.domain.selectors.usage import budget_month  # noqa: E402
from portal.domain.services import ledger  # noqa: E402

LIMIT = 24  # holdings at once; each writer would have 2 or 3
AMOUNTS = {"environments": 1, "cpu": 4000, "memory": 16 * 2**30, "accelerator:chip": 1, "accelerators": 1000, "accelerator_seconds": 28_800}
Span = tuple[int, int]  # nanoseconds of the machine's clock between which a holding was there for certain

app.conf.broker_url = "memory://"
settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def setup(writers: int) -> None:
    """A team with room for LIMIT holdings, a user for each writer, and no use."""
    call_command("migrate", verbosity=0)
    team = services.team_create(actor=None, slug="race", name="Race")
    for number in range(writers):
        user, _ = User.objects.get_or_create(username=f"racer-{number}")
        services.membership_set(actor=None, team=team, user=user, role=Membership.Role.ENGINEER)
    for resource, amount in AMOUNTS.items():
        services.quota_set(actor=None, team=team, user=None, resource=resource, limit=LIMIT * amount)
    Quota.objects.filter(team=team).update(used=0)
    for user in team.members.all():  # the rows of the users, as their first request makes them
        with transaction.atomic():
            ledger.reserve(team, user, AMOUNTS)
            ledger.release(team.pk, user.pk, AMOUNTS)
    Quota.objects.filter(team=team).update(used=0)


class Ours:
    """The ledger as `environment_request` calls it; a refusal comes with its words."""

    def __init__(self, team: Team, user: User) -> None:
        self.team, self.user = team, user
        connection.ensure_connection()

    def take(self) -> bool:
        try:
            ledger.look(self.team, self.user, AMOUNTS)
            with transaction.atomic():
                ledger.reserve(self.team, self.user, AMOUNTS, looked=True)
        except QuotaExceeded:
            return False
        return True

    def give(self) -> None:
        with transaction.atomic():
            ledger.release(self.team.pk, self.user.pk, AMOUNTS)


class Bare:
    """The same statement through the driver."""

    def __init__(self, team: Team, user: User) -> None:
        parameters = [part for resource in sorted(AMOUNTS) for part in (resource, AMOUNTS[resource])]
        back = [part for resource in sorted(AMOUNTS) for part in (resource, -AMOUNTS[resource])]
        where = [budget_month().isoformat(), team.pk, user.pk]
        self.sql, self.rows = ledger.take_sql(connection.vendor, len(AMOUNTS)), 2 * len(AMOUNTS)
        self.taking, self.giving = [*parameters, *where, self.rows], [*back, *where, 0]
        if connection.vendor == "sqlite":
            options = settings.DATABASES["default"]["OPTIONS"]
            self.connection: Any = sqlite3.connect(settings.DATABASES["default"]["NAME"], timeout=options["timeout"], isolation_level=None)
            self.connection.executescript(options["init_command"])
            self.begin = "BEGIN IMMEDIATE"
        else:
            import psycopg

            parameters_of = {key: value for key, value in connection.get_connection_params().items() if key in {"dbname", "user", "password", "host", "port"}}
            self.connection = psycopg.connect(**parameters_of, autocommit=True, cursor_factory=psycopg.ClientCursor)
            self.begin = "BEGIN"

    def _run(self, parameters: list[Any]) -> int:
        with closing(self.connection.cursor()) as cursor:
            cursor.execute(self.begin)
            rows = len(cursor.execute(self.sql, parameters).fetchall())
            cursor.execute("COMMIT" if rows else "ROLLBACK")
            return rows

    def take(self) -> bool:
        return self._run(self.taking) >= self.rows

    def give(self) -> None:
        self._run(self.giving)


class Atomic(Bare):
    """The same statement through Django's connection, in a transaction of Django's."""

    def __init__(self, team: Team, user: User) -> None:
        super().__init__(team, user)
        self.connection.close()
        connection.ensure_connection()

    def _run(self, parameters: list[Any]) -> int:
        with transaction.atomic(), closing(connection.connection.cursor()) as cursor:
            return len(cursor.execute(self.sql, parameters).fetchall())


SIDES = {"ours": Ours, "bare": Bare, "atomic": Atomic}


def write(number: int, attempts: int, kind: str, fill: bool) -> dict[str, Any]:
    """Attempt so often; when each holding was there, and how many are still."""
    team = Team.objects.get(slug="race")
    side = SIDES[kind](team, User.objects.get(username=f"racer-{number}"))
    chance = random.Random(number)
    spans: list[Span] = []
    holding: list[int] = []
    grants = 0
    for _ in range(attempts):
        if side.take():
            grants += 1
            holding.append(time.monotonic_ns())
        if not fill and holding and (len(holding) > 2 or chance.random() < 0.5):
            spans.append((holding.pop(0), time.monotonic_ns()))
            side.give()
    end = time.monotonic_ns()
    return {"grants": grants, "spans": spans + [(since, end) for since in holding], "held": len(holding)}


def most_at_once(spans: Iterable[Span]) -> int:
    """How many of the spans overlap at most."""
    moments = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, step in moments:
        now += step
        most = max(most, now)
    return most


def _process(number: int, attempts: int, kind: str, fill: bool, gate: Any, answers: Any) -> None:
    try:
        connection.close()
        connection.ensure_connection()
        gate.wait()
        began = time.monotonic_ns()
        answer = write(number, attempts, kind, fill)
        answers.put(answer | {"began": began, "ended": time.monotonic_ns()})
    except BaseException:
        traceback.print_exc()
        gate.abort()
        answers.put(None)


def compete(writers: int, attempts: int, *, kind: str = "ours", fill: bool = False) -> dict[str, Any]:
    """Let the writers loose together, `attempts` in all. Raises RuntimeError when one of them failed."""
    connection.close()  # a connection must not be shared by two processes
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(writers), context.Queue()
    each = attempts // writers
    crowd = [context.Process(target=_process, args=(number, each, kind, fill, gate, answers)) for number in range(writers)]
    for process in crowd:
        process.start()
    found = [answers.get() for _ in crowd]
    for process in crowd:
        process.join()
    if None in found:
        raise RuntimeError("a writer failed")
    spans = [tuple(span) for answer in found for span in answer["spans"]]
    return {
        "attempts": each * writers,
        "grants": sum(answer["grants"] for answer in found),
        "seconds": (max(answer["ended"] for answer in found) - min(answer["began"] for answer in found)) / 1e9,
        "peak": most_at_once(spans),
        "held": sum(answer["held"] for answer in found),
        "accounts": accounts(),
    }


def accounts() -> dict[str, int]:
    """Of each resource, what the account of the team says in holdings; -1 when it is no whole number or differs from that of its users."""
    found = {}
    for resource, amount in AMOUNTS.items():
        used = Quota.objects.get(team__slug="race", user=None, resource=resource).used
        users = sum(Quota.objects.filter(team__slug="race", resource=resource).exclude(user=None).values_list("used", flat=True))
        found[resource] = used // amount if used % amount == 0 and used == users else -1
    return found


def pgbench_scripts() -> list[str]:
    """Taking and giving back as pgbench scripts: the statement of the ledger, each client as a user of its own."""
    team, first = Team.objects.get(slug="race"), User.objects.get(username="racer-0").pk
    sql = ledger.take_sql("postgresql", len(AMOUNTS))
    scripts = []
    for sign, rows in ((1, 2 * len(AMOUNTS)), (-1, 0)):
        parts = [part for resource in sorted(AMOUNTS) for part in (f"'{resource}'", sign * AMOUNTS[resource])]
        text = sql % (*parts, f"'{budget_month().isoformat()}'", team.pk, ":user", rows)
        scripts.append(f"\\set user :client_id + {first}\nBEGIN;\n{text};\nCOMMIT;\n")
    return scripts


if __name__ == "__main__":
    count, wanted, *options = sys.argv[1:]
    setup(int(count))
    print(json.dumps(compete(int(count), int(wanted), kind=next((side for side in SIDES if side in options), "ours"), fill="fill" in options)))
