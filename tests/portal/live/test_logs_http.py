"""Logs over plain HTTP: the same lines for scripts and for the download button."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.k8s.log_server import LogServer

from .site import COOKIE, Site
from .test_viewer import PATIENCE, T0, at

pytestmark = pytest.mark.integration


def bearer(site: Site, name: str = "lena", *scopes: str) -> dict[str, str]:
    return {"Authorization": "Bearer " + site.rows("token", name=name, scopes=list(scopes) or ["environments:read"])}


def get(site: Site, environment: str, headers: dict[str, str], **query: str) -> httpx.Response:
    return httpx.get(f"{site.url}/api/v1/environments/{environment}/logs", params=query, headers=headers, timeout=60, trust_env=False)


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    return response.json()


async def test_who_may_not_see_it_gets_a_problem_document(site: Site, environment: str) -> None:
    assert "Bearer" in get(site, environment, {}).headers["www-authenticate"]
    is_problem(get(site, environment, {}), 401)
    is_problem(get(site, environment, {"Authorization": "Bearer atl_wrong"}), 401)
    is_problem(get(site, environment, bearer(site, "lena", "tokens")), 403)
    is_problem(get(site, environment, bearer(site, "charlie")), 404)
    is_problem(get(site, environment, {"Cookie": f"{COOKIE}={site.rows('sign_in', name='bob')}"}), 404)
    is_problem(httpx.post(f"{site.url}/api/v1/environments/{environment}/logs", headers=bearer(site), trust_env=False), 405)


@pytest.mark.parametrize("query", [{"tail": "-1"}, {"tail": "x"}, {"follow": "maybe"}, {"timestamps": "2"}])
async def test_a_bad_parameter_is_named(site: Site, environment: str, query: dict[str, str]) -> None:
    assert set(is_problem(get(site, environment, bearer(site), **query), 422)["errors"]) == set(query)


async def test_logs_of_several_replicas_are_merged_by_time_and_prefixed(site: Site, environment: str, cluster: LogServer) -> None:
    for pod in ("w-0", "w-1"):
        cluster.create(pod)
        cluster.begin(pod, T0)
    await cluster.write("w-0", at(1, b"a1"), at(3, b"a3"))
    await cluster.write("w-1", at(2, b"\x1b[2Jb2"), at(4, b"x" * 100_000))
    site.rows("observe", environment=environment, replicas=["w-0", "w-1"])
    headers = bearer(site)

    async def ask(**query: str) -> httpx.Response:
        return await asyncio.to_thread(get, site, environment, headers, **query)

    answer = await ask()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    lines = answer.text.splitlines()
    assert lines[:3] == ["[w-0] a1", "[w-1] b2", "[w-0] a3"]
    assert lines[3].endswith("x ... [34464 bytes not shown]")
    assert (await ask(replica="w-0")).text == "a1\na3\n"
    assert (await ask(replica="w-0", timestamps="true", tail="1")).text == "2026-11-22T19:00:03.000000000Z a3\n"
    is_problem(await ask(replica="../secret"), 404)
    is_problem(await ask(container="../secret"), 404)
    session = {"Cookie": f"{COOKIE}={site.rows('sign_in', name='lena')}"}
    assert "attachment" in (await asyncio.to_thread(get, site, environment, session, download="true")).headers["content-disposition"]
    cluster.broken = True
    is_problem(await ask(), 503)
    await cluster.delete("w-0")
    await cluster.delete("w-1")
    cluster.broken = False
    site.rows("archive", environment=environment, replica="w-0", text="2026-11-22T19:00:01.000000000Z kept\n")
    site.rows("observe", environment=environment, replicas=[])
    assert (await ask()).text == "[w-0] kept\n"


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_follow_goes_on_until_the_environment_rests(site: Site, environment: str, cluster: LogServer) -> None:
    cluster.create("w-0")
    cluster.begin("w-0", T0)
    await cluster.write("w-0", at(1, b"one"))
    site.rows("observe", environment=environment, replicas=["w-0"])
    got: list[str] = []
    url = f"{site.url}/api/v1/environments/{environment}/logs?follow=true&replica=w-0"
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client:

        async def read() -> None:
            async with client.stream("GET", url, headers=bearer(site)) as response:
                assert response.status_code == 200
                async for line in response.aiter_lines():
                    got.append(line)  # noqa: PERF401  looked at while it grows

        task = asyncio.create_task(read())
        await until(lambda: got == ["one"])
        await cluster.write("w-0", at(2, b"two"))
        await until(lambda: got == ["one", "two"])
        await cluster.delete("w-0")
        site.rows("observe", environment=environment, replicas=[])
        for to in ("stopping", "stopped"):
            site.rows("move", environment=environment, to=to)
        await asyncio.wait_for(task, PATIENCE)
    assert got == ["one", "two"]


async def test_a_follow_ends_when_its_token_is_revoked(site: Site, environment: str, cluster: LogServer) -> None:
    cluster.create("w-0")
    cluster.begin("w-0", T0)
    await cluster.write("w-0", at(1, b"one"))
    site.rows("observe", environment=environment, replicas=["w-0"])
    url = f"{site.url}/api/v1/environments/{environment}/logs?follow=true"
    async with httpx.AsyncClient(trust_env=False, timeout=None) as client, client.stream("GET", url, headers=bearer(site)) as response:
        lines = response.aiter_lines()
        assert await asyncio.wait_for(anext(lines), PATIENCE) == "[w-0] one"
        site.rows("revoke_tokens", name="lena")
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(lines), PATIENCE)
    await until(lambda: cluster.open_follows == 0)
