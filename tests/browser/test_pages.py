"""The pages in a real Chromium: live without reload, by keyboard, in both themes and languages, on a small screen. Nothing may land in the console."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from .conftest import Portal, Watch, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.integration]

PageOf = Callable[..., Page]


def new_name(prefix: str) -> str:
    return f"{prefix}-{uuid4().hex[:6]}"


@pytest.fixture
def environment(portal: Portal) -> Any:
    """Makes an environment of bob's (who has no limits but those he meets) and deletes its row's claims afterwards."""
    made: list[str] = []

    def make(shape: str = "", owner: str = "bob", prefix: str = "nb", **more: Any) -> tuple[str, str]:
        name = new_name(prefix)
        key = portal.rows("launch", owner=owner, name=name, team="speech" if owner == "bob" else "vision", **more)
        if shape:
            portal.rows("shape", name=shape, environment=key)
        made.append(key)
        return key, name

    yield make
    for key in made:
        if portal.rows("state", environment=key)[0] != "deleted":
            portal.rows("remove", environment=key)


def test_sign_in_launch_and_the_page_of_the_new_environment(page_of: PageOf, portal: Portal) -> None:
    page = page_of("bob")
    page.get_by_role("link", name="Launch", exact=True).first.click()
    page.get_by_role("link", name="Dask cluster").click()
    name = new_name("sweep")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Workers").fill("3")
    expect(page.locator("#preview")).to_contain_text("3 × worker")
    page.get_by_text("Medium").click()
    expect(page.locator("#preview")).to_contain_text("3 × worker: 4 CPU")
    page.locator("#launch-submit").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.locator("#state")).to_have_attribute("data-state", "requested")
    expect(page.locator("#workers")).to_have_text("3")
    portal.rows("remove", environment=page.url.rstrip("/").rsplit("/", 1)[1])


def test_a_page_follows_its_environment_without_a_reload(page_of: PageOf, portal: Portal, environment: Any) -> None:
    key, name = environment()
    page = page_of("bob")
    page.goto(f"/environments/{key}/")
    page.evaluate("window.notReloaded = true")
    for state in ("queued", "provisioning"):
        portal.rows("move", environment=key, to=state)
        expect(page.locator("#state")).to_have_attribute("data-state", state)
    portal.rows("shape", name="run_notebook", environment=key)
    expect(page.locator("#state")).to_have_attribute("data-state", "running")
    expect(page.get_by_role("link", name="Open JupyterLab")).to_have_attribute("href", f"{portal.hub}/user/bob/{name}/lab")
    expect(page.locator("#announcer")).to_have_text(f"{name}: running")
    portal.rows("event", environment=key, kind="warning", code="BackOff", message="<b>not bold</b>")
    expect(page.locator(".event").first).to_contain_text("<b>not bold</b>")
    assert page.evaluate("window.notReloaded")


def test_the_list_follows_every_environment_of_mine_without_a_reload(page_of: PageOf, portal: Portal, environment: Any) -> None:
    page = page_of("bob")
    expect(page.locator("[data-connection=open]")).to_be_attached()
    page.evaluate("window.notReloaded = true")
    key, _ = environment()
    row = page.locator(f"#row-{key}")
    expect(row).to_contain_text("requested")
    portal.rows("shape", name="fail", environment=key)
    expect(row).to_contain_text("failed")
    expect(row).to_contain_text("cannot be pulled")
    assert page.evaluate("window.notReloaded")


def test_a_refresh_keeps_the_focus_where_it_was(page_of: PageOf, portal: Portal, environment: Any) -> None:
    key, _ = environment("run_notebook")
    page = page_of("bob")
    page.goto(f"/environments/{key}/")
    expect(page.locator("[data-connection=open]")).to_be_attached()
    page.locator("#open-stop").focus()
    portal.rows("event", environment=key, kind="info", code="Note", message="something happened")
    expect(page.get_by_text("something happened")).to_be_visible()
    expect(page.locator("#open-stop")).to_be_focused()


def test_a_dialog_asks_first_keeps_the_focus_and_gives_it_back(page_of: PageOf, portal: Portal, environment: Any) -> None:
    key, _ = environment("run_notebook")
    page = page_of("bob")
    page.goto(f"/environments/{key}/")
    page.locator("#open-delete").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#dialog-delete")
    expect(dialog).to_be_visible()
    for _ in range(8):
        page.keyboard.press("Tab")
        # the browser's own controls may have their turn, the page behind may not
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('#dialog-delete')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#open-delete")).to_be_focused()
    assert portal.rows("state", environment=key)[1] == "running"
    page.locator("#open-delete").click()
    dialog.get_by_label("Delete the home volume too").check()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("It is being deleted.")).to_be_visible()
    state, desired, _, _, purge = portal.rows("state", environment=key)
    assert (state, desired, purge) == ("running", "deleted", True)


def test_scaling_a_cluster_from_its_page(page_of: PageOf, portal: Portal, environment: Any) -> None:
    key, _ = environment("run_cluster", prefix="dask", template="dask", workers=2)
    page = page_of("bob")
    page.goto(f"/environments/{key}/")
    page.get_by_role("button", name="Scale").click()
    dialog = page.locator("#dialog-scale")
    dialog.get_by_label("Workers").fill("4")
    dialog.get_by_role("button", name="Scale").click()
    expect(page.locator("#workers")).to_have_text("4")
    page.get_by_role("button", name="Scale").click()
    dialog.get_by_label("Workers").fill("400")
    dialog.get_by_role("button", name="Scale").click()
    expect(page.get_by_text("greater than the maximum")).to_be_visible()
    assert portal.rows("state", environment=key)[2] == 4


def test_a_refused_launch_keeps_what_was_typed_and_goes_to_the_field(page_of: PageOf) -> None:
    page = page_of("bob")
    page.goto("/launch/notebook/")
    page.get_by_label("Name").fill("Not A Name")
    page.get_by_text("Medium").click()
    page.locator("#launch-submit").click()
    expect(page.locator("#error_name")).to_contain_text("Not a name")
    expect(page.get_by_label("Name")).to_have_value("Not A Name")
    expect(page.get_by_label("Name")).to_be_focused()
    expect(page.locator("input[name=flavor][value=medium]")).to_be_checked()


@pytest.fixture(autouse=True)
def _refusals_are_no_console_errors(watch: Watch) -> None:
    # Chromium logs every answer of 400 and above; a refused form is answered with 422
    watch.allow("status of 422")


def test_the_skip_link_and_the_cards_work_by_keyboard(page_of: PageOf) -> None:
    page = page_of("bob")
    page.goto("/launch/notebook/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_label("Name").fill("by-keyboard")
    page.locator("input[name=flavor][value=small]").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("input[name=flavor][value=medium]")).to_be_checked()
    expect(page.locator("#preview")).to_contain_text("4 CPU")


def test_the_theme_follows_the_system_until_one_is_chosen_and_is_remembered(page_of: PageOf) -> None:
    page = page_of("bob", color_scheme="dark")
    root = page.locator("html")
    expect(root).to_have_attribute("data-bs-theme", "dark")
    page.locator("[data-theme-toggle]").click()
    expect(root).to_have_attribute("data-bs-theme", "light")
    page.reload()
    expect(root).to_have_attribute("data-bs-theme", "light")
    page.locator("[data-theme-toggle]").click()
    page.locator("[data-theme-toggle]").click()
    expect(root).to_have_attribute("data-theme-choice", "auto")
    expect(root).to_have_attribute("data-bs-theme", "dark")


def test_switching_to_chinese_and_back(page_of: PageOf) -> None:
    page = page_of("lena")  # the choice is kept in the account, so not one that other tests use
    page.locator("summary[aria-label=Language]").click()
    page.get_by_role("button", name="简体中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    expect(page.get_by_role("heading", name="我的环境")).to_be_visible()
    page.locator("summary[aria-label=语言]").click()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="My environments")).to_be_visible()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_page_scrolls_sideways(width: int, page_of: PageOf, environment: Any) -> None:
    cluster, _ = environment("run_cluster", prefix="dask", template="dask", workers=2)
    broken, _ = environment("fail")
    page = page_of("bob", viewport={"width": width, "height": 844})
    for address in ("/", f"/environments/{cluster}/", f"/environments/{broken}/", "/launch/", "/launch/dask/", "/tokens/", "/quotas/"):
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), address


def test_the_menu_opens_on_a_small_screen(page_of: PageOf) -> None:
    page = page_of("bob", viewport={"width": 390, "height": 844})
    link = page.locator("#nav-menu").get_by_role("link", name="Quota")
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    link.click()
    expect(page.get_by_role("heading", name="Quota")).to_be_visible()


def test_a_token_can_be_copied_once_and_revoked(page_of: PageOf) -> None:
    page = page_of("bob", permissions=["clipboard-read", "clipboard-write"])
    page.goto("/tokens/")
    name = new_name("script")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Read the catalogue").check()
    page.get_by_role("button", name="Make the token").click()
    shown = page.locator("#plaintext").inner_text()
    assert shown.startswith("atl_")
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == shown
    page.goto("/tokens/")
    expect(page.locator("#plaintext")).to_have_count(0)
    page.get_by_role("row", name=re.compile(name)).get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Yes, do it").click()
    expect(page.get_by_text("The token is revoked.")).to_be_visible()
    expect(page.get_by_text(name)).to_have_count(0)


def test_an_outsider_gets_the_page_of_what_is_not_found(page_of: PageOf, watch: Watch, environment: Any) -> None:
    watch.allow("status of 404")
    key, name = environment("run_notebook")
    page = page_of("charlie")
    answer = page.goto(f"/environments/{key}/")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name=name)).to_have_count(0)
    expect(page.get_by_text("There is no such page")).to_be_visible()


def test_a_session_that_ends_leads_to_the_sign_in_page_and_back(page_of: PageOf, portal: Portal, watch: Watch, environment: Any) -> None:
    watch.allow("WebSocket")
    key, name = environment("run_notebook")
    page = page_of("bob")
    page.goto(f"/environments/{key}/")
    expect(page.locator("[data-connection=open]")).to_be_attached()
    portal.rows("expire_sessions")
    page.evaluate("htmx.trigger(document.getElementById('live'), 'refresh')")
    # Two things lead there, the socket and the refresh, and the second navigation may cut the first short: so no waiting for one navigation.
    expect(page).to_have_url(re.compile("/accounts/login/"))
    expect(page.get_by_label("Password")).to_be_visible()
    sign_in_here(page)
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def sign_in_here(page: Page) -> None:
    """On the sign-in page one has been led to."""
    from tests.web.world import PASSWORD

    page.get_by_label("User name").fill("bob")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def test_signing_out_closes_the_door(page_of: PageOf, portal: Portal) -> None:
    page = page_of("bob")
    page.locator("summary[aria-label=Account]").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/accounts/login/**")
    page.goto("/")
    page.wait_for_url("**/accounts/login/**")
    sign_in(page, portal.url, "bob")
    expect(page.get_by_role("heading", name="My environments")).to_be_visible()
