"""The queue, approvals, notifications and what happens by itself, in a real Chromium: live, by keyboard, in the reader's time zone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .conftest import Portal, Watch
from .test_pages import new_name

pytestmark = [pytest.mark.browser, pytest.mark.integration]

PageOf = Callable[..., Page]
RANGE = {"earliest": "2031-12-01T09:00:00Z", "latest": "2031-12-01T11:30:00Z"}


@pytest.fixture(autouse=True)
def _refusals_are_no_console_errors(watch: Watch) -> None:
    watch.allow("status of 422")


@pytest.fixture
def environment(portal: Portal) -> Iterator[Callable[..., str]]:
    """Makes environments and removes their rows' claims afterwards."""
    made: list[str] = []

    def make(shape: str = "", owner: str = "bob", **more: Any) -> str:
        key: str = portal.rows("launch", owner=owner, name=new_name("nb"), team="speech" if owner == "bob" else "vision", **more)
        if shape:
            portal.rows("shape", name=shape, environment=key)
        made.append(key)
        return key

    yield make
    for key in made:
        if portal.rows("state", environment=key)[0] != "deleted":
            portal.rows("remove", environment=key)


def told(position: int, **more: Any) -> dict[str, Any]:
    message = f"waiting for 1 x pod: 0 free, {position - 1} environments ahead"
    return {"position": position, "ahead": position - 1, "code": "WaitingForRoom", "message": message, "eta": None, **more}


def test_the_place_in_the_queue_follows_without_a_reload(page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    key = environment()
    portal.rows("move", environment=key, to="queued")
    portal.rows("write", environment=key, admitted_at=None, queue=told(3))
    page = page_of("bob", timezone_id="Europe/Berlin")
    page.goto(f"/environments/{key}/")
    expect(page.locator("[data-live-target=live][data-connection=open]")).to_be_attached()
    page.evaluate("window.notReloaded = true")
    expect(page.locator("#queue-position")).to_have_text("3")
    expect(page.locator("#queue-eta")).to_have_text("not known")
    portal.rows("write", environment=key, queue=told(1, eta=RANGE))
    expect(page.locator("#queue-position")).to_have_text("1")
    expect(page.locator("#queue-eta")).to_contain_text("between Dec 1, 10:00 and Dec 1, 12:30")  # the browser's zone, an hour ahead of UTC
    expect(page.locator("#queue-eta")).to_contain_text("Europe/Berlin")
    expect(page.locator("#announcer")).to_have_text("Position 1 in the queue")
    portal.rows("move", environment=key, to="provisioning")
    expect(page.locator("#queue-card")).to_have_count(0)
    assert page.evaluate("window.notReloaded")


def test_the_queue_page_follows_without_a_reload(page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    key = environment()
    portal.rows("move", environment=key, to="queued")
    portal.rows("write", environment=key, admitted_at=None, queue=told(2))
    page = page_of("bob")
    page.goto("/queue/")
    expect(page.locator("[data-live-target=live][data-connection=open]")).to_be_attached()
    row = page.locator(f"#queue-{key}")
    expect(row).to_contain_text("Waiting for 1 x pod: 0 free, 1 environments ahead")
    page.evaluate("window.notReloaded = true")
    portal.rows("write", environment=key, queue=told(1))
    expect(row).to_contain_text("0 environments ahead")
    portal.rows("move", environment=key, to="provisioning")
    expect(row).to_have_count(0)
    assert page.evaluate("window.notReloaded")


def test_the_zone_of_the_settings_goes_before_the_browsers(page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    key = environment(owner="alice")
    portal.rows("move", environment=key, to="queued")
    portal.rows("write", environment=key, admitted_at=None, queue=told(1, eta=RANGE))
    page = page_of("alice", timezone_id="Europe/Berlin")
    page.goto("/settings/")
    page.get_by_role("button", name="Europe/Berlin").click()
    expect(page.get_by_label("Time zone")).to_have_value("Europe/Berlin")
    page.get_by_label("Time zone").select_option("Asia/Shanghai")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your settings are saved.")).to_be_visible()
    page.goto(f"/environments/{key}/")
    expect(page.locator("#queue-eta")).to_contain_text("between Dec 1, 17:00 and Dec 1, 19:30")
    expect(page.locator("#queue-eta")).to_contain_text("Asia/Shanghai")


def test_a_warning_comes_by_itself_and_one_click_extends(page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    key = environment("run_notebook")
    page = page_of("bob")
    page.goto(f"/environments/{key}/")
    expect(page.locator("[data-live-target=live][data-connection=open]")).to_be_attached()
    portal.rows("write", environment=key, in_minutes_expires_at=20, in_minutes_expiry_warned_at=0)
    expect(page.locator("#notice-expiry")).to_contain_text("in 20 minutes")
    page.locator("#extend-once").click()
    expect(page.get_by_text("Its time was extended.")).to_be_visible()
    expect(page.locator("#notice-expiry")).to_have_count(0)


def test_a_schedule_is_set_by_keyboard(page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    key = environment("run_notebook")
    page = page_of("bob")
    page.goto(f"/environments/{key}/")
    page.locator("#open-schedule").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#dialog-schedule")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Fri").focus()
    page.keyboard.press("Space")
    dialog.get_by_label("Start at").fill("09:00")
    dialog.get_by_label("Stop at").fill("20:00")
    dialog.get_by_label("Stop at").press("Enter")
    expect(page.locator("#schedule")).to_contain_text("Mon–Thu from 09:00 to 20:00 (UTC)")
    page.locator("#open-schedule").click()
    dialog.get_by_role("button", name="No schedule").click()
    expect(page.get_by_text("It has no schedule any more.")).to_be_visible()
    expect(page.locator("#schedule")).to_have_count(0)


def test_a_lead_is_told_and_approves_less_and_the_asker_sees_it(page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    lena = page_of("lena")
    expect(lena.locator("#bell")).to_be_visible()
    before = int(lena.locator("#bell").get_attribute("data-unread") or 0)
    lena.evaluate("window.notReloaded = true")
    portal.rows("need_approval", template="dask")
    try:
        key = environment(owner="alice", template="dask", workers=4)
    finally:
        portal.rows("self_service")
    expect(lena.locator("#bell")).to_have_attribute("data-unread", str(before + 1))
    expect(lena.locator("#approvals-count")).to_have_text("1")
    assert lena.evaluate("window.notReloaded")
    number = portal.rows("approval_of", environment=key)

    alice = page_of("alice")
    alice.goto(f"/environments/{key}/")
    expect(alice.locator("#approval-card")).to_contain_text("lena")

    lena.goto("/approvals/")
    lena.locator(f"#decide-{number}").focus()
    lena.keyboard.press("Enter")
    dialog = lena.locator("#dialog-decision")
    expect(dialog).to_be_visible()
    lena.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(lena.locator(f"#decide-{number}")).to_be_focused()
    lena.keyboard.press("Enter")
    dialog.get_by_label("Workers").fill("2")
    dialog.get_by_label("Note").fill("start small")
    dialog.get_by_role("button", name="Approve", exact=True).click()
    expect(lena.get_by_text("Approved. alice is told.")).to_be_visible()
    expect(alice.locator("#approval-answer")).to_contain_text("start small")
    expect(alice.locator("#workers")).to_have_text("2")
    expect(lena.locator("#approvals-count")).to_be_hidden()


def test_notifications_arrive_are_read_and_lead_to_what_they_are_about(page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    key = environment("run_notebook")
    page = page_of("bob")
    page.goto("/notifications/")
    page.locator("#read-all").click()
    expect(page.locator("#bell")).to_have_attribute("data-unread", "0")
    expect(page.locator("[data-live-target=live][data-connection=open]")).to_be_attached()
    portal.rows("notify", user="bob", message="<i>something</i> to know", environment=key)
    expect(page.get_by_text("<i>something</i> to know")).to_be_visible()
    expect(page.locator("#bell")).to_have_attribute("data-unread", "1")
    page.get_by_role("button", name="Open").first.click()
    expect(page).to_have_url(f"{portal.url}/environments/{key}/")
    expect(page.locator("#bell")).to_have_attribute("data-unread", "0")


def test_the_launch_page_says_what_it_would_do_and_takes_a_schedule(page_of: PageOf, portal: Portal) -> None:
    page = page_of("bob")
    page.goto("/launch/notebook/")
    expect(page.locator("#preview-start")).to_contain_text("at once")
    page.locator("#launch-schedule summary").focus()
    page.keyboard.press("Enter")
    name = new_name("timed")
    with page.expect_response("**/preview"):  # a request that the next page cuts short would be complained about
        page.get_by_label("Stop at").fill("20:00")
        page.get_by_label("Name").fill(name)
    page.wait_for_load_state("networkidle")
    page.locator("#launch-submit").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.locator("#schedule")).to_contain_text("stops at 20:00")
    portal.rows("remove", environment=page.url.rstrip("/").rsplit("/", 1)[1])


@pytest.mark.parametrize("width", [320, 768, 1280])
def test_no_new_page_scrolls_sideways(width: int, page_of: PageOf, portal: Portal, environment: Callable[..., str]) -> None:
    key = environment()
    portal.rows("move", environment=key, to="queued")
    portal.rows("write", environment=key, admitted_at=None, queue=told(1, eta=RANGE))
    page = page_of("lena", viewport={"width": width, "height": 844})
    for address in ("/queue/", "/approvals/", "/notifications/", "/usage/", "/settings/", "/launch/notebook/"):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), address
