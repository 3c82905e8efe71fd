"""Django admin goes through the services."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.test import Client

from portal.catalogue.loader import BUILTIN
from portal.domain import services
from portal.domain.lifecycle import Desired
from portal.domain.models import Approval, ApprovalRule, Environment, Membership, Quota, Team, Template
from tests.portal.world import World


@pytest.fixture
def browser(world: World, settings: Any) -> Client:
    settings.STORAGES = settings.STORAGES | {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
    client = Client()
    client.force_login(world.admin)
    return client


PAGES = [
    "templateversion",
    "team",
    "membership",
    "quota",
    "usage",
    "user",
    "environment",
    "volume",
    "node",
    "approvalrule",
    "approval",
    "notification",
    "template",
    "flavor",
    "accelerator",
]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_for_admins_and_for_nobody_else(browser: Client, world: World, page: str) -> None:
    environment = world.running()
    assert browser.get(f"/admin/domain/{page}/").status_code == 200
    if page == "environment":
        assert b"Requested from template notebook" in browser.get(f"/admin/domain/environment/{environment.pk}/change/").content
    for outsider in (world.charlie, world.lena):
        other = Client()
        other.force_login(outsider)
        assert other.get(f"/admin/domain/{page}/").status_code == 302


def test_a_limit_is_set_and_use_is_kept(browser: Client, world: World) -> None:
    world.request()
    row = Quota.objects.get(team=world.vision, user=None, resource="cpu")
    assert browser.post(f"/admin/domain/quota/{row.pk}/change/", {"limit": "2000"}).status_code == 302
    row.refresh_from_db()
    assert (row.limit, row.used) == (2000, 1000)
    assert browser.post(f"/admin/domain/quota/{row.pk}/change/", {"limit": "-1"}).status_code == 200
    row.refresh_from_db()
    assert row.limit == 2000
    add = {"team": world.vision.pk, "user": world.bob.pk, "resource": "cpu", "limit": "1"}
    assert b"is not in team vision" in browser.post("/admin/domain/quota/add/", add).content
    assert browser.post("/admin/domain/quota/add/", add | {"user": world.alice.pk, "resource": "accelerator:nvidia-gpu"}).status_code == 302
    assert Quota.objects.get(team=world.vision, user=world.alice, resource="accelerator:nvidia-gpu").limit == 1


def test_a_new_team_has_its_quota_rows_and_a_bad_slug_is_refused(browser: Client) -> None:
    assert browser.post("/admin/domain/team/add/", {"slug": "Robots!", "name": "R"}).status_code == 200
    assert browser.post("/admin/domain/team/add/", {"slug": "robots", "name": "R"}).status_code == 302
    assert Team.objects.get(slug="robots").quotas.filter(resource="accelerator:nvidia-gpu", limit=0).exists()


def test_taking_a_member_out_stops_what_it_runs(browser: Client, world: World) -> None:
    environment = world.running()
    row = Membership.objects.get(user=world.alice)
    assert browser.post(f"/admin/domain/membership/{row.pk}/delete/", {"post": "yes"}).status_code == 302
    environment.refresh_from_db()
    assert environment.desired == Desired.STOPPED


def test_taking_away_active_deactivates_the_account(browser: Client, world: World) -> None:
    environment = world.running()
    form = {"username": "alice", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    assert browser.post(f"/admin/domain/user/{world.alice.pk}/change/", form).status_code == 302
    world.alice.refresh_from_db()
    environment.refresh_from_db()
    assert not world.alice.is_active
    assert environment.reason == "OwnerDeactivated"


def test_an_environment_cannot_be_changed_or_deleted_there(browser: Client, world: World) -> None:
    environment = world.running()
    assert browser.post(f"/admin/domain/environment/{environment.pk}/change/", {"state": "deleted"}).status_code == 403
    assert browser.post(f"/admin/domain/environment/{environment.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Environment.objects.get().state == "running"


def test_a_template_is_edited_as_yaml_and_held_to_the_rules_of_its_file(browser: Client) -> None:
    template = Template.objects.get(slug="dask")
    address = f"/admin/domain/template/{template.pk}/change/"
    versions = {"versions-TOTAL_FORMS": "0", "versions-INITIAL_FORMS": "0"}
    shown = browser.get(address).content.decode()
    assert "slug: dask\nversion:" in shown
    text = (BUILTIN / "templates" / "dask.yaml").read_text()

    def post(document: str, **fields: str) -> str:
        answer = browser.post(address, {"enabled": "on", "document": document.replace("\n", "\r\n")} | versions | fields)
        return "" if answer.status_code == 302 else html.unescape(answer.content.decode())

    line = text[: text.index("image:")].count("\n") + 1
    assert f"line {line}: roles[0].image: '' should be non-empty" in post(re.sub("image: .*", "image: ''", text, count=1))
    assert "line 2: version: version" in post(text.replace("position: 20", "position: 7"))
    assert "line 1: slug: cannot be changed" in post(text.replace("slug: dask", "slug: other"))
    assert "line 4: not readable:" in post("slug: dask\nversion: 9\nkind: [\n")
    newer = f"# ours\n{text}".replace(f"version: {template.version}", f"version: {template.version + 1}").replace("position: 20", "position: 7")
    assert post(newer) == ""
    before = template.version
    template.refresh_from_db()
    assert (template.position, template.version, template.enabled) == (7, before + 1, True)
    assert template.versions.get(version=template.version).source.startswith("# ours\n")
    assert browser.post(address, {"document": newer} | versions).status_code == 302
    template.refresh_from_db()
    assert not template.enabled
    added = {"enabled": "on", "document": newer.replace("slug: dask", "slug: mine")}
    assert browser.post("/admin/domain/template/add/", added | versions).status_code == 302
    assert Template.objects.get(slug="mine").enabled


def test_versions_are_looked_at_and_redirected_there(browser: Client) -> None:
    template = Template.objects.get(slug="dask")
    first = template.version
    services.template_store(spec=template.spec | {"version": first + 1})
    old = template.versions.get(version=first)
    page = "/admin/domain/templateversion/"
    assert "slug: dask" in browser.get(f"{page}{old.pk}/change/").content.decode()
    assert browser.post(f"{page}{old.pk}/change/", {"version": "99"}).status_code == 403
    everyone = [row.pk for row in template.versions.all()]
    for action, expected in (("redirect_to_newest", first + 1), ("keep_their_own", None)):
        browser.post(page, {"action": action, "_selected_action": everyone})
        old.refresh_from_db()
        assert old.replaced_by == expected
    assert template.versions.get(version=first + 1).replaced_by is None


def test_a_rule_of_approval_must_say_something_that_can_be_checked(browser: Client, world: World) -> None:
    address, template = "/admin/domain/approvalrule/add/", Template.objects.get(slug="dask").pk
    for wrong, says in (
        ({}, b"Name a template"),
        ({"resource": "bananas", "above": "1"}, b"Must be one of"),
        ({"resource": "cpu"}, b"go together"),
        ({"template": template, "above": "3"}, b"go together"),
        ({"resource": "cpu", "above": "-1"}, b"0 or more"),
    ):
        assert says in browser.post(address, wrong | {"enabled": "on"}).content, wrong
    assert not ApprovalRule.objects.exists()
    for right in ({"template": template}, {"resource": "hours", "above": "8"}, {"resource": "accelerator:nvidia-gpu", "above": "0", "team": world.vision.pk}):
        assert browser.post(address, right | {"enabled": "on"}).status_code == 302
    assert ApprovalRule.objects.count() == 3


def test_an_approval_is_looked_at_there_and_answered_elsewhere(browser: Client, world: World) -> None:
    ApprovalRule.objects.create(template=Template.objects.get(slug="notebook"))
    world.request()
    approval = Approval.objects.get()
    assert browser.get(f"/admin/domain/approval/{approval.pk}/change/").status_code == 200
    assert browser.post(f"/admin/domain/approval/{approval.pk}/change/", {"status": "approved"}).status_code == 403
    assert Approval.objects.get().status == "pending"


def test_whether_leads_may_approve_their_own_is_set_on_the_team(browser: Client, world: World) -> None:
    address = f"/admin/domain/team/{world.vision.pk}/change/"
    assert browser.post(address, {"name": "Vision", "self_approval": "on"}).status_code == 302
    assert Team.objects.get(slug="vision").self_approval
    assert browser.post(address, {"name": "Vision"}).status_code == 302
    assert not Team.objects.get(slug="vision").self_approval
