"""Ways between portal and Hub in a real browser, which holds forms to the portal's Content-Security-Policy also through redirects."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.hub.conftest import PASSWORD, Site

pytestmark = [pytest.mark.integration, pytest.mark.browser]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator:
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text) if "Content Security Policy" in message.text else None)
        yield page
        browser.close()


def test_the_form_leads_from_the_hub_through_sign_in_back_to_the_hub_and_the_menu_out_again(site: Site, page) -> None:
    page.goto(site.hub + "/hub/login?next=/hub/health")
    assert page.url.startswith(site.portal + "/accounts/login/")
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(site.hub + "/hub/health")

    page.goto(site.portal + "/accounts/logout/")
    page.locator("main").get_by_role("button", name="Sign out").click()
    page.wait_for_url(site.portal + "/accounts/login/")
    page.goto(site.hub + "/hub/login?next=/hub/health")
    assert page.url.startswith(site.portal + "/accounts/login/")
    assert page.complaints == []
