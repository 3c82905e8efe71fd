"""Signing in once, at the portal; and how access to the Hub ends."""

from __future__ import annotations

import pytest

from tests.hub.conftest import Site
from tests.stack import wait_until

pytestmark = pytest.mark.integration


def test_signing_in_at_the_portal_is_enough_for_the_hub(site: Site) -> None:
    browser = site.browser("alice")
    response = browser.enter_hub()
    assert response.status_code == 200
    # Nothing on the way asked for anything: no page with a form, no consent.
    assert all(each.is_redirect for each in response.history)
    assert any(str(each.url).startswith(site.portal + "/o/authorize/") for each in response.history)
    assert browser.hub_user() == "alice"


def test_the_hub_sends_a_stranger_to_the_portals_sign_in_page_and_lets_them_in_after_it(site: Site) -> None:
    browser = site.browser()
    page = browser.enter_hub()
    assert str(page.url).startswith(site.portal + "/accounts/login/")
    back = page.url.params["next"]
    answer = browser.sign_in("bob", url=str(page.url), next=back)
    assert answer.headers["location"].startswith("/o/authorize/")
    browser.get(site.portal + answer.headers["location"])
    assert browser.hub_user() == "bob"


def test_user_names_that_differ_in_case_are_two_people_at_the_hub(site: Site) -> None:
    upper, lower = site.browser("Alice"), site.browser("alice")
    upper.enter_hub()
    lower.enter_hub()
    assert (upper.hub_user(), lower.hub_user()) == ("Alice", "alice")


def test_the_hub_learns_the_users_teams(site: Site) -> None:
    browser = site.browser("alice")
    browser.enter_hub()
    ada = site.browser("ada")
    ada.enter_hub()
    from jupyterhub import orm

    with site.hub_database() as db:
        assert [group.name for group in orm.User.find(db, "alice").groups] == ["vision"]
        admin = orm.User.find(db, "ada")
        assert [group.name for group in admin.groups] == ["atelier-admins"]
        assert admin.admin is False


def test_someone_deactivated_cannot_sign_in(site: Site) -> None:
    browser = site.browser()
    answer = browser.sign_in("dora")
    assert answer.headers["location"] == "/accounts/inactive/"
    browser.get(site.portal + "/accounts/inactive/")
    assert str(browser.enter_hub().url).startswith(site.portal + "/accounts/login/")


def test_signing_out_at_the_portal_goes_through_the_hub_and_ends_both(site: Site) -> None:
    browser = site.browser("alice")
    browser.enter_hub()
    assert browser.hub_user() == "alice"
    response = browser.sign_out()
    assert site.hub + "/hub/logout" in [str(each.url) for each in response.history]
    assert str(response.url) == site.portal + "/accounts/login/"
    assert browser.hub_user() == ""
    assert str(browser.enter_hub().url).startswith(site.portal + "/accounts/login/")


def test_a_copied_hub_cookie_dies_with_the_sign_out_even_if_no_worker_tells_the_hub(site: Site) -> None:
    browser = site.browser("bob")
    browser.enter_hub()
    thief = site.browser()
    for cookie in browser.cookies.jar:
        if not cookie.name.startswith("atelier"):
            thief.cookies.jar.set_cookie(cookie)
    assert thief.hub_user() == "bob"
    browser.sign_out()
    wait_until(lambda: thief.hub_user() == "", "the Hub to find out")


def test_deactivating_a_user_ends_hub_access_even_if_no_worker_tells_the_hub(site: Site) -> None:
    site.run(f"from portal.domain.models import User; User.objects.create_user('erin', password={'a long enough pass phrase'!r})")
    browser = site.browser("erin")
    browser.enter_hub()
    assert browser.hub_user() == "erin"
    site.run("from portal.domain.models import User; user = User.objects.get(username='erin'); user.is_active = False; user.save()")
    wait_until(lambda: browser.hub_user() == "", "the Hub to find out")
    assert str(browser.enter_hub().url).startswith(site.portal + "/accounts/login/")


def test_work_at_the_hub_goes_on_past_many_renewals_of_its_tokens(site: Site) -> None:
    browser = site.browser("alice")
    browser.enter_hub()
    newest = "from oauth2_provider.models import RefreshToken\nprint(RefreshToken.objects.filter(revoked=None, user__username='alice').latest('pk').pk)"
    for _ in range(3):
        site.run("from oauth2_provider.models import AccessToken; from django.utils import timezone; AccessToken.objects.update(expires=timezone.now())")
        before = site.run(newest)

        def renewed(before: str = before) -> bool:
            assert browser.hub_user() == "alice"
            return int(site.run(newest)) > int(before)

        wait_until(renewed, "the Hub to renew its token")


def test_the_hub_serves_its_users_while_the_portal_restarts(site: Site) -> None:
    browser = site.browser("bob")
    browser.enter_hub()
    assert browser.hub_user() == "bob"
    site.stop("portal")
    try:
        seen = []

        def asked() -> bool:
            seen.append(browser.hub_user())
            return len(seen) > 60

        wait_until(asked, "many requests, over more than the refresh age")
        assert set(seen) == {"bob"}, site.log("hub").read_text()[-6000:]
    finally:
        site.start("portal")
