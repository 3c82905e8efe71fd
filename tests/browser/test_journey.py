"""The whole way in a browser, against everything that `make up` starts: sign in, launch, watch it start, read its log, run a cell, delete it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from playwright.sync_api import TimeoutError as TimedOut

from tests.stack import Stack, wait_until

from .conftest import Watch, sign_in

pytestmark = [pytest.mark.browser, pytest.mark.integration]

SLOW = 240_000  # milliseconds; a pod, a Hub and a kernel start in this time even on a busy machine


def launch(page: Page, template: str, name: str, **fields: str) -> str:
    """Through the launch form; the address of the new environment's page."""
    page.goto(f"/launch/{template}/")
    page.get_by_label("Name").fill(name)
    for label, value in fields.items():
        page.get_by_label(label).fill(value)
    expect(page.locator("#preview")).to_contain_text("→")
    page.locator("#launch-submit").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    return page.url


def wait_running(page: Page) -> None:
    """The page says so by itself; a failure is told with its reason."""
    state = page.locator("#state")
    expect(state).to_have_attribute("data-state", re.compile("running|failed"), timeout=SLOW)
    assert state.get_attribute("data-state") == "running", page.locator("main").inner_text()


def delete(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("#open-delete").click()
    dialog = page.locator("#dialog-delete")
    purge = dialog.get_by_label("Delete the home volume too")
    if purge.count():
        purge.check()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("It is being deleted.")).to_be_visible()


def test_from_signing_in_to_a_cell_that_ran_and_back_to_nothing(stack: Stack, new_context: Callable[..., BrowserContext], watch: Watch) -> None:
    context = new_context(base_url=stack.url)
    page = context.new_page()
    sign_in(page, stack.url, "alice", stack.credentials()["alice"])
    expect(page.get_by_text("No environments yet")).to_be_visible()

    notebook = launch(page, "notebook", "journey")
    page.evaluate("window.notReloaded = true")
    wait_running(page)
    assert page.evaluate("window.notReloaded"), "the page followed the start without a reload"
    expect(page.locator("#logs [data-logs-view]")).to_contain_text(re.compile("jupyter", re.IGNORECASE), timeout=SLOW)

    # one click, no second sign-in; what JupyterLab itself logs is not ours to judge
    complaints = len(watch.complaints)
    with context.expect_page() as opened:
        page.get_by_role("link", name="Open JupyterLab").click()
    lab = opened.value
    lab.set_default_timeout(SLOW)
    assert run_cell(lab, "print(6 * 7 * 1000)") == "42000"
    lab.close()
    del watch.complaints[complaints:]

    cluster = launch(page, "dask", "journey-dask", Workers="1")
    wait_running(page)
    expect(page.locator("#endpoint-1")).to_be_visible()
    expect(page.locator("#snippet")).to_contain_text("Client(")

    delete(page, cluster)
    delete(page, notebook)
    expect(page.get_by_text("No environments yet")).to_be_visible(timeout=SLOW)


def run_cell(lab: Page, code: str) -> str:
    """Open a new notebook from JupyterLab's launcher, run `code` in its first cell; what it printed."""
    lab.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    # a visible editor is not yet a kernel: running too early would be lost
    expect(lab.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible(timeout=SLOW)
    editor = lab.locator(".jp-Notebook .jp-Cell .cm-content").first
    editor.click()
    lab.keyboard.type(code)
    output = lab.locator(".jp-Notebook .jp-OutputArea-output").first

    def ran() -> bool:
        """JupyterLab loses what it runs while its connection to the kernel breaks off and is made anew; people run the cell again then."""
        editor.click()
        lab.keyboard.press("Shift+Enter")
        with contextlib.suppress(TimedOut):
            output.wait_for(timeout=SLOW / 8)
        return output.is_visible()

    wait_until(ran, "what the cell prints")
    return output.inner_text().strip()
