"""The log viewer in a real browser: colours, following and pausing, search, many lines, a lost connection, the download."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.k8s.log_server import LogServer
from tests.stack import wait_until

from .site import COOKIE, Site
from .test_viewer import T0, at

pytestmark = [pytest.mark.browser, pytest.mark.integration]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
TIMEOUT = 60_000  # milliseconds


@pytest.fixture
async def page(site: Site, environment: str, cluster: LogServer) -> AsyncIterator[Page]:
    """The environment's page with one replica that printed a few lines. An error on the page's console fails the test."""
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine: `apt-get install chromium`, or name one in CHROMIUM")
    cluster.create("w-0")
    cluster.begin("w-0", T0)
    await cluster.write("w-0", at(1, b"\x1b[1;31mred\x1b[0m plain"), at(1, b"<img src=x onerror=document.title='bad'>"), at(2, b"needle in here"))
    site.rows("observe", environment=environment, replicas=["w-0"])
    expect.set_options(timeout=TIMEOUT)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        context = await browser.new_context(accept_downloads=True)
        await context.add_cookies([{"name": COOKIE, "value": site.rows("sign_in", name="lena"), "url": site.url}])
        page = await context.new_page()
        page.set_default_timeout(TIMEOUT)
        errors: list[str] = []
        page.complaints = errors  # type: ignore[attr-defined]  # for a test that provokes some
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: errors.append(f"{message.text} {message.location}") if message.type == "error" and "WebSocket" not in message.text else None,
        )
        await page.goto(f"{site.url}/environments/{environment}/")
        await expect(page.locator(".logs-line")).to_have_count(3)
        await page.locator("[data-logs-view]").scroll_into_view_if_needed()
        yield page
        await browser.close()
    assert errors == []


def text(page: Page):  # type: ignore[no-untyped-def]
    return page.locator(".logs-line .logs-text")


async def test_colours_are_shown_and_markup_is_only_text(page: Page) -> None:
    await expect(page.locator("[data-logs-state]")).to_have_text("Live")
    await expect(text(page)).to_have_text(["red plain", "<img src=x onerror=document.title='bad'>", "needle in here"])
    await expect(page.locator(".logs-line .f1.a-bold")).to_have_text("red")
    assert await page.locator("[data-logs-view] img").count() == 0
    assert "bad" not in await page.title()


async def test_search_marks_matches_and_can_hide_the_rest(page: Page, cluster: LogServer) -> None:
    await page.fill("[data-logs-search]", "NEEDLE")
    await expect(page.locator(".logs-line mark")).to_have_text("needle")
    await expect(page.locator("[data-logs-count]")).to_have_text("0 of 1")
    await page.check("[data-logs-filter]")
    await expect(page.locator(".logs-line:visible")).to_have_count(1)
    await cluster.write("w-0", at(3, b"another needle"), at(3, b"hay"))
    await expect(page.locator(".logs-line:visible")).to_have_count(2)
    await page.press("[data-logs-search]", "Enter")
    await expect(page.locator("[data-logs-count]")).to_have_text("1 of 2")
    await page.press("[data-logs-search]", "Escape")
    await expect(page.locator(".logs-line:visible")).to_have_count(5)


async def test_scrolling_up_pauses_and_one_button_goes_on(page: Page, cluster: LogServer) -> None:
    await cluster.write("w-0", *[at(3, b"line %d" % n) for n in range(500)])
    await expect(text(page).last).to_have_text("line 499")
    await expect(text(page).last).to_be_in_viewport()
    await page.locator("[data-logs-view]").hover()
    await page.mouse.wheel(0, -2000)
    await expect(page.locator("[data-logs-state]")).to_have_text("Paused")
    await cluster.write("w-0", at(4, b"unseen"))
    await expect(page.locator("[data-logs-jump]")).to_have_text("1 new lines ↓")
    await expect(text(page).last).not_to_be_in_viewport()
    await page.click("[data-logs-jump]")
    await expect(text(page).last).to_be_in_viewport()
    await expect(page.locator("[data-logs-state]")).to_have_text("Live")
    await page.press("[data-logs-view]", "PageUp")
    await expect(page.locator("[data-logs-state]")).to_have_text("Paused")
    await page.press("[data-logs-view]", "End")
    await expect(page.locator("[data-logs-state]")).to_have_text("Live")


async def test_tens_of_thousands_of_lines_stay_bounded_and_the_newest_is_shown(page: Page, cluster: LogServer) -> None:
    for start in range(0, 24_000, 2000):
        await cluster.write("w-0", *[at(3, b"line %d" % n) for n in range(start, start + 2000)])
        await expect(text(page).last).to_have_text(f"line {start + 1999}")
    assert 19_000 < await page.locator(".logs-line").count() <= 20_101
    await expect(page.locator(".logs-older")).to_have_count(1)
    await expect(text(page).last).to_be_in_viewport()
    await page.fill("[data-logs-search]", "line 2399")
    await expect(page.locator("[data-logs-count]")).to_have_text("0 of 10")


async def test_a_restarted_portal_loses_and_repeats_nothing(page: Page, site: Site, cluster: LogServer) -> None:
    site.stop_process("web")
    await expect(page.locator("[data-logs-state]")).to_have_text("Connection lost, trying again")
    await cluster.write("w-0", at(3, b"while away"))
    site.spawn("web", [sys.executable, "-m", "uvicorn", "portal.asgi:application", "--host", "127.0.0.1", "--port", site.port, "--no-access-log"])
    await asyncio.to_thread(_wait, site)
    await expect(page.locator("[data-logs-state]")).to_have_text("Live")
    await expect(text(page)).to_have_text(["red plain", re.compile("^<img"), "needle in here", "while away"])
    provoked = ("htmx:", "ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE")  # the page asked a portal that was away
    page.complaints[:] = [item for item in page.complaints if not any(text in item for text in provoked)]  # type: ignore[attr-defined]


def _wait(site: Site) -> None:
    wait_until(site._answers, "the portal to answer")


async def test_the_replica_choice_the_times_and_the_download_go_together(page: Page, site: Site, environment: str, cluster: LogServer) -> None:
    cluster.create("w-1")
    cluster.begin("w-1", T0)
    await cluster.write("w-1", at(5, b"from the other"))
    site.rows("observe", environment=environment, replicas=["w-0", "w-1"])
    await expect(text(page).last).to_have_text("from the other")
    await expect(page.locator(".logs-name").last).to_have_text("w-1")
    await page.select_option("[data-logs-replica]", "w-1")
    await expect(text(page)).to_have_text(["from the other"])
    await page.check("[data-logs-times]")
    await expect(page.locator(".logs-time")).to_be_visible()
    async with page.expect_download() as download:
        await page.click("[data-logs-download]")
    path = await (await download.value).path()
    assert path.read_text() == "2026-11-22T19:00:05.000000000Z from the other\n"


async def test_a_pod_that_ends_is_told(page: Page, site: Site, environment: str, cluster: LogServer) -> None:
    await cluster.delete("w-0")
    site.rows("observe", environment=environment, replicas=[])
    for to in ("stopping", "stopped"):
        site.rows("move", environment=environment, to=to)
    await expect(page.locator("[data-logs-state]")).to_have_text("Ended")
    await expect(page.locator(".logs-line")).to_have_count(3)
