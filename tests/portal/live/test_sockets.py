"""Sockets of a real portal: who may open them, what they say, and when they must end."""

from __future__ import annotations

import asyncio
import json
import sys
from uuid import uuid4

import pytest
from websockets.exceptions import InvalidStatus

from tests.k8s.log_server import LogServer

from .site import Site, launch
from .test_viewer import T0, at

pytestmark = pytest.mark.integration

PATHS = ["/ws/environments/{id}/", "/ws/environments/{id}/logs/"]


@pytest.mark.parametrize("path", PATHS)
async def test_outsiders_and_strangers_are_turned_away_without_learning_whether_it_exists(site: Site, environment: str, path: str) -> None:
    async with site.socket(path.format(id=environment)) as client:
        assert await client.close_code() == 4401
    for name in ("charlie", "bob", "alice"):
        async with site.socket(path.format(id=environment), site.rows("sign_in", name=name)) as client:
            assert (await client.close_code(), client.messages) == (4404, [])
    async with site.socket(path.format(id=uuid4()), site.rows("sign_in", name="charlie")) as client:
        assert await client.close_code() == 4404
    async with site.socket(path.format(id="not-an-id"), site.rows("sign_in", name="lena")) as client:
        assert await client.close_code() == 4404


async def test_nobody_sees_the_listing_without_signing_in(site: Site) -> None:
    async with site.socket("/ws/environments/") as client:
        assert await client.close_code() == 4401


async def test_a_page_of_another_site_cannot_open_a_socket_with_my_cookie(site: Site, environment: str) -> None:
    with pytest.raises(InvalidStatus):
        async with site.socket(PATHS[0].format(id=environment), site.rows("sign_in", name="lena"), origin="http://evil.example"):
            pass


@pytest.mark.parametrize("query", ["?after=x", "?after=-1", "?after=99999999999"])
async def test_a_bad_number_is_refused(site: Site, environment: str, query: str) -> None:
    async with site.socket(PATHS[0].format(id=environment) + query, site.rows("sign_in", name="lena")) as client:
        assert await client.close_code() == 4400


@pytest.mark.parametrize("query", ["?after=x", "?after=a/b=1", "?tail=-1", "?tail=1000000000"])
async def test_a_bad_resume_point_is_refused_by_the_log_socket(site: Site, environment: str, query: str) -> None:
    async with site.socket(PATHS[1].format(id=environment) + query, site.rows("sign_in", name="lena")) as client:
        assert await client.close_code() == 4400


@pytest.mark.parametrize("who", ["lena", "admin"])
async def test_state_and_events_come_first_and_then_live(site: Site, environment: str, who: str) -> None:
    session = site.rows("sign_in", name=who)
    async with site.socket(PATHS[0].format(id=environment), session) as client:
        last = site.rows("last_seq", environment=environment)
        await client.until(lambda: any(m["type"] == "event" and m["seq"] == last for m in client.messages))
        assert [m["seq"] for m in client.messages if m["type"] == "event"] == list(range(1, last + 1))
        assert client.messages[0]["type"] == "state"
        assert client.messages[0]["state"] == "running"
        site.rows("event", environment=environment, code="Pulled", message="image is there")
        await client.until(lambda: client.messages[-1].get("code") == "Pulled")
        site.rows("move", environment=environment, to="failed", message="it broke")
        await client.until(lambda: any(m["type"] == "state" and m["state"] == "failed" for m in client.messages))
    async with site.socket(PATHS[0].format(id=environment) + f"?after={last}", session) as again:
        await again.until(lambda: [m["seq"] for m in again.messages if m["type"] == "event"][-1:] == [last + 2])
        assert [m["seq"] for m in again.messages if m["type"] == "event"] == [last + 1, last + 2]


async def test_the_listing_tells_owner_lead_and_admin_but_no_outsider_of_a_change(site: Site) -> None:
    sessions = {name: site.rows("sign_in", name=name) for name in ("alice", "lena", "admin", "charlie")}
    async with (
        site.socket("/ws/environments/", sessions["alice"]) as alice,
        site.socket("/ws/environments/", sessions["lena"]) as lena,
        site.socket("/ws/environments/", sessions["admin"]) as admin,
        site.socket("/ws/environments/", sessions["charlie"]) as charlie,
    ):
        environment = launch(site, "alice")
        for client in (alice, lena, admin):
            await client.until(lambda c=client: any(m["environment"] == environment and m["state"] == "running" for m in c.messages))  # type: ignore[misc]
        for to in ("deleting", "deleted"):
            site.rows("move", environment=environment, to=to)
        for client in (alice, lena, admin):
            await client.until(lambda c=client: any(m["environment"] == environment and m["state"] == "deleted" for m in c.messages))  # type: ignore[misc]
        await charlie.connection.close()
        assert await charlie.close_code() == 1000
        assert charlie.messages == []


@pytest.mark.parametrize("path", [*PATHS, "/ws/environments/"])
async def test_signing_out_ends_an_open_socket(site: Site, environment: str, path: str) -> None:
    session = site.rows("sign_in", name="lena")
    async with site.socket(path.format(id=environment), session) as client:
        site.rows("sign_out", session=session)
        assert await client.close_code() == 4401


@pytest.mark.parametrize("path", [*PATHS, "/ws/environments/"])
async def test_a_deactivated_users_sockets_end(site: Site, path: str) -> None:
    environment = launch(site, "alice")
    async with site.socket(path.format(id=environment), site.rows("sign_in", name="alice")) as client:
        try:
            site.rows("deactivate", name="alice")
            assert await client.close_code() == 4401
        finally:
            site.rows("reactivate", name="alice")
            for to in ("deleting", "deleted"):
                site.rows("move", environment=environment, to=to)


@pytest.mark.parametrize("path", PATHS)
async def test_a_lead_who_leaves_the_team_sees_no_more_of_it(site: Site, path: str) -> None:
    environment = launch(site, "alice")
    async with site.socket(path.format(id=environment), site.rows("sign_in", name="lena")) as client:
        await client.receive()
        try:
            site.rows("leave_team", name="lena", team="vision")
            assert await client.close_code() == 4404
        finally:
            site.rows("lead_team", name="lena", team="vision")
            for to in ("deleting", "deleted"):
                site.rows("move", environment=environment, to=to)


async def test_logs_come_with_history_resume_and_archive(site: Site, environment: str, cluster: LogServer) -> None:
    session = site.rows("sign_in", name="lena")
    cluster.create("w-0")
    cluster.begin("w-0", T0)
    await cluster.write("w-0", at(1, b"one"), at(1, b"\x1b[32mtwo\x1b[0m \x1b]0;x\x07<b>"))
    site.rows("observe", environment=environment, replicas=["w-0"])
    path = PATHS[1].format(id=environment)
    async with site.socket(path, session) as client:
        await client.until(lambda: len(client.lines) == 2)
        assert client.texts == ["one", "\x1b[32mtwo\x1b[0m <b>"]
        assert client.lines[1] == {
            "seq": f"{(T0 + 1) * 10**9}-1",
            "ts": "2026-11-22T19:00:01.000000000Z",
            "replica": "w-0",
            "container": "main",
            "text": "\x1b[32mtwo\x1b[0m <b>",
        }
    await cluster.write("w-0", at(2, b"three"))
    cluster.create("w-1")
    cluster.begin("w-1", T0)
    await cluster.write("w-1", at(3, b"other"))
    async with site.socket(path + "?after=message", session) as again:
        await again.connection.send(json.dumps({"after": client.cursors}))
        await again.until(lambda: again.texts == ["three"])
        site.rows("observe", environment=environment, replicas=["w-0", "w-1"])
        await again.until(lambda: again.texts == ["three", "other"])
        await cluster.delete("w-0")
        await cluster.delete("w-1")
        site.rows(
            "archive",
            environment=environment,
            replica="w-0",
            text="".join(f"2026-11-22T19:00:0{n}.000000000Z {t}\n" for n, t in ((1, "one"), (2, "three"), (4, "last"))),
        )
        site.rows("observe", environment=environment, replicas=[])
        site.rows("move", environment=environment, to="stopping")
        site.rows("move", environment=environment, to="stopped")
        await again.until(lambda: "last" in again.texts)
        assert again.texts == ["three", "other", "last"]  # the archive gives only what was not seen
    after = f"w-0/main={(T0 + 2) * 10**9}-0"
    async with site.socket(path + f"?after={after}", session) as late:
        await late.until(lambda: any(m["type"] == "status" and m["state"] == "archived" and not m["replica"] for m in late.messages))
        assert late.texts == ["last"]


async def test_a_waiting_viewer_reads_the_latest_events(site: Site, cluster: LogServer) -> None:
    environment = site.rows("launch", owner="lena", name="waiting", template="dask")
    site.rows("event", environment=environment, code="FailedScheduling", message="0/3 nodes are available")
    async with site.socket(PATHS[1].format(id=environment), site.rows("sign_in", name="lena")) as client:
        await client.until(lambda: any(m["type"] == "status" and m["state"] == "waiting" for m in client.messages))
        status = next(m for m in client.messages if m["type"] == "status")
        assert "0/3 nodes are available" in [event["message"] for event in status["events"]]
        for to in ("deleting", "deleted"):
            site.rows("move", environment=environment, to=to)
        assert await client.close_code() == 1000


async def test_sockets_go_on_while_redis_is_down(site: Site, environment: str) -> None:
    session = site.rows("sign_in", name="lena")
    site.stop_process("redis")
    try:
        async with site.socket(PATHS[0].format(id=environment), session) as client:
            await client.receive()
            site.rows("event", environment=environment, code="Quiet", message="nobody announces this")
            await client.until(lambda: client.messages[-1].get("code") == "Quiet")
    finally:
        site.spawn("redis", [sys.executable, "-m", "portal.ops.run", "redis"])
    async with site.socket(PATHS[0].format(id=environment), session) as client:
        await asyncio.wait_for(client.receive(), 60)
