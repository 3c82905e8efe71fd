"""The launch page in a real Chromium: templates found by typing, parameters of every sort, refusals at their fields."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from .conftest import Portal, Watch

pytestmark = [pytest.mark.browser, pytest.mark.integration]

PageOf = Callable[..., Page]


@pytest.fixture
def page(portal: Portal, page_of: PageOf) -> Page:
    portal.rows("offer", copies=5)
    return page_of("alice")


def test_templates_are_found_by_typing(page: Page) -> None:
    page.goto("/launch/")
    notebooks, clusters = page.get_by_role("heading", name="Notebooks"), page.get_by_role("heading", name="Clusters")
    expect(notebooks).to_be_visible()
    page.get_by_label("Search templates").fill("engine 3")
    expect(page.get_by_role("heading", name="Engine 3")).to_be_visible()
    expect(page.get_by_role("heading", name="Engine 4")).to_be_hidden()
    expect(notebooks).to_be_hidden()
    expect(clusters).to_be_visible()
    page.get_by_label("Search templates").fill("nothing of the sort")
    expect(page.get_by_text("No template matches.")).to_be_visible()
    expect(clusters).to_be_hidden()
    page.get_by_label("Search templates").fill("")
    expect(notebooks).to_be_visible()


def test_every_sort_of_parameter_is_typed_refused_at_its_field_and_launched(page: Page, watch: Watch) -> None:
    watch.allow("htmx:")  # leaving the page ends a preview that is on its way
    watch.allow("422")
    page.goto("/launch/everything/")
    expect(page.get_by_role("group", name="GPU")).to_contain_text("1 × A100")
    page.get_by_label("Name", exact=True).fill(f"all-{uuid4().hex[:6]}")
    page.get_by_label("Image").fill("Not an image")
    page.get_by_label("Seed").fill("700")
    page.get_by_label("Hosts").fill("a.example\nb!")
    page.get_by_label("Precision").select_option("Full")
    page.get_by_label("Write more to the log").check()
    page.locator("input[name=flavor][value=small]").check(force=True)
    page.locator("#launch-submit").click()
    expect(page.locator("#error_param_image")).to_contain_text("is not the name of an image")
    expect(page.locator("#error_param_seed")).to_contain_text("greater than the maximum of 100")
    expect(page.locator("#error_param_hosts")).to_contain_text("does not match")
    page.get_by_label("Image").fill("registry.example.com/team/train:1.0")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Hosts").fill("a.example\nb1")
    page.locator("#launch-submit").click()
    facts = page.get_by_role("region", name="Facts")
    for text in ("registry.example.com/team/train:1.0", "Full", "yes", "a.example", "version 1"):
        expect(facts).to_contain_text(text)
