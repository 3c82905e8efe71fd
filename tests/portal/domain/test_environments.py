"""The verbs of users, and their refusals."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from portal.domain import selectors, services
from portal.domain.errors import Conflict, DomainError, Forbidden, NotFound, ValidationError
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, Event, Flavor, Template
from tests.portal.world import World, node


def codes(environment: Environment) -> list[str]:
    return [event.code for event in selectors.events_after(environment, 0, 100)]


def test_a_request_starts_in_requested_with_its_first_event_and_its_expiry(world: World) -> None:
    environment = world.request(expires_in=timedelta(hours=2))
    assert (environment.state, environment.desired) == (State.REQUESTED, Desired.RUNNING)
    assert codes(environment) == ["Requested"]
    assert environment.expires_at is not None
    assert abs(environment.expires_at - timezone.now() - timedelta(hours=2)) < timedelta(minutes=1)


@pytest.mark.django_db(transaction=True)
def test_a_verb_nudges_a_worker_once_and_only_after_commit(transactional_db: None, broker: Any) -> None:
    from tests.portal.world import make_world

    world = make_world()
    broker.sent()
    environment = world.request()
    assert broker.sent() == [("workers.converge", (str(environment.pk),))]
    with pytest.raises(Conflict):
        services.environment_start(actor=world.alice, environment_id=environment.pk)
    assert broker.sent() == []
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    assert broker.sent() == [("workers.converge", (str(environment.pk),))]


@pytest.mark.parametrize("name", ["", "x" * 300, "../etc", "a b", "Upper", "1st", "-a", "a-", "a\n", "nb\x00", "ü", None, 7, ["nb"], "a" * 41])
def test_a_bad_name_is_refused_with_the_rule(world: World, name: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        world.request(name=name)
    assert "lower-case letters, digits and hyphens" in caught.value.errors["name"][0]


@pytest.mark.parametrize("name", ["a", "a1", "my-notebook", "a" * 40])
def test_a_good_name_is_taken(world: World, name: str) -> None:
    assert world.request(name=name).name == name


@pytest.mark.parametrize("workers", [-1, 0, 33, 10**30, 1.5, "2", True, None, [2], float("inf")])
def test_a_bad_number_of_workers_is_refused(world: World, workers: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        world.request(template="dask", params={"workers": workers})
    assert "params.workers" in caught.value.errors


def test_every_wrong_field_is_named_at_once(world: World) -> None:
    with pytest.raises(ValidationError) as caught:
        world.request(name="..", template="nope", flavor="nope", team="nope")
    assert set(caught.value.errors) == {"name", "template", "flavor", "team"}
    with pytest.raises(ValidationError) as caught:
        world.request(template="dask", params={"wrokers": 2, "workers": "many"}, expires_in=timedelta(days=400))
    assert set(caught.value.errors) == {"params", "params.workers", "expires_in"}


def test_parameters_with_nul_or_broken_unicode_are_refused(world: World) -> None:
    Template.objects.filter(slug="dask").update(spec={**Template.objects.get(slug="dask").spec, "params": {"type": "object"}})
    for text in ("a\x00b", "\ud800"):
        with pytest.raises(ValidationError, match="NUL"):
            world.request(name="x", template="notebook", params={"text": text})


def test_a_team_of_others_is_as_unknown_as_none(world: World) -> None:
    def refusal(team: str) -> str:
        with pytest.raises(ValidationError) as caught:
            world.request(team=team)
        return caught.value.errors["team"][0]

    assert refusal("speech") == refusal("no-such-team")
    with pytest.raises(ValidationError, match="no team yet"):
        world.request(actor=world.charlie)


def test_disabled_templates_and_flavors_cannot_be_requested(world: World) -> None:
    Template.objects.filter(slug="dask").update(enabled=False)
    Flavor.objects.filter(slug="cpu-large").update(enabled=False)
    with pytest.raises(ValidationError, match="no such template"):
        world.request(template="dask")
    with pytest.raises(ValidationError, match="no such flavor"):
        world.request(flavor="cpu-large")


def test_a_flavor_that_no_node_can_ever_hold_is_refused_with_the_reason(world: World) -> None:
    world.limit("accelerator:nvidia-a100-80g", 8)
    world.request(flavor="a100-1", name="before-any-node-is-known")
    services.nodes_observed([node("small", cpu=2, gib=4)])
    with pytest.raises(ValidationError, match=r"no node has the label nvidia.com/gpu.product"):
        world.request(flavor="a100-1")
    with pytest.raises(ValidationError, match=r"4 CPU \(the largest node has 2 CPU\)"):
        world.request(flavor="cpu-large")
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    services.nodes_observed([node("gpu", cpu=64, gib=512, labels=labels, taints=[taint], devices={"nvidia.com/gpu": 8}, used_cpu=64, ready=False)])
    world.request(flavor="a100-1")  # full and not ready now, but it can hold one
    with pytest.raises(ValidationError, match=r"kept for others by the taint nvidia\.com/gpu"):
        world.request(flavor="cpu-small", name="plain")


def test_the_same_name_is_refused_until_the_other_is_deleted(world: World) -> None:
    first = world.running()
    with pytest.raises(ValidationError, match="already have an environment called nb"):
        world.request()
    services.environment_delete(actor=world.alice, environment_id=first.pk)
    world.bring_to(first, "deleting", "deleted")
    world.request()
    world.request(actor=world.lena)


def test_an_inactive_user_is_refused(world: World) -> None:
    services.user_deactivate(actor=world.admin, user=world.alice)
    world.alice.is_active = True  # what a request in flight still believes
    with pytest.raises(Forbidden):
        world.request()
    with pytest.raises(Forbidden):
        services.token_create(actor=world.alice, name="x", scopes=["tokens"])


VERBS: dict[str, Any] = {
    "start": services.environment_start,
    "stop": services.environment_stop,
    "retry": services.environment_retry,
    "delete": services.environment_delete,
    "rename": lambda **kwargs: services.environment_rename(name="other", **kwargs),
    "scale": lambda **kwargs: services.environment_scale(workers=2, **kwargs),
    "extend": lambda **kwargs: services.environment_extend(expires_in=timedelta(hours=1), **kwargs),
}


@pytest.mark.parametrize("verb", VERBS)
def test_outsiders_are_told_there_is_no_such_environment(world: World, verb: str) -> None:
    environment = world.running(template="dask")
    for outsider in (world.charlie, world.bob):
        with pytest.raises(NotFound):
            VERBS[verb](actor=outsider, environment_id=environment.pk)
        with pytest.raises(NotFound):
            VERBS[verb](actor=outsider, environment_id="not-an-id")
    environment.refresh_from_db()
    assert environment.desired_generation == 1


def test_a_colleague_without_lead_sees_nothing_but_the_lead_and_admins_do(world: World) -> None:
    environment = world.request(actor=world.lena)
    assert list(selectors.environments_visible_to(world.alice)) == []
    mine = world.request()
    assert set(selectors.environments_visible_to(world.lena)) == {environment, mine}
    assert set(selectors.environments_visible_to(world.admin)) == {environment, mine}
    world.admin.is_active = False
    assert not selectors.environments_visible_to(world.admin).exists()


@pytest.mark.parametrize(
    ("states", "verb", "says"),
    [
        (["queued"], "start", "is queued already"),
        (["queued"], "retry", "only a failed environment"),
        (["queued", "provisioning", "running"], "start", "is running already"),
        (["failed"], "start", "retry it"),
        (["deleting"], "stop", "is being deleted"),
        (["deleting", "deleted"], "start", "is deleted; request a new one"),
        (["queued", "provisioning", "running"], "rename", "stop it before renaming"),
    ],
)
def test_a_verb_in_the_wrong_state_is_refused_naming_the_state_and_what_to_do(world: World, states: list[str], verb: str, says: str) -> None:
    environment = world.bring_to(world.request(), *states)
    with pytest.raises(Conflict, match=says):
        VERBS[verb](actor=world.alice, environment_id=environment.pk)


def test_stop_keeps_it_startable_and_start_grants_the_time_anew(world: World) -> None:
    environment = world.running(expires_in=timedelta(hours=1))
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    with pytest.raises(Conflict, match="being stopped already"):
        services.environment_stop(actor=world.alice, environment_id=environment.pk)
    with pytest.raises(Conflict, match="still being stopped"):
        services.environment_start(actor=world.alice, environment_id=environment.pk)
    world.bring_to(environment, "stopping", "stopped")
    Environment.objects.filter(pk=environment.pk).update(expires_at=timezone.now() - timedelta(hours=3))
    started = services.environment_start(actor=world.alice, environment_id=environment.pk)
    assert started.expires_at is not None
    assert started.expires_at > timezone.now() + timedelta(minutes=59)
    assert codes(environment)[-3:] == ["Stopped", "StartRequested", "Queued"]


def test_deleting_twice_is_no_error_and_purge_may_be_added(world: World) -> None:
    environment = world.running()
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    assert codes(environment).count("DeleteRequested") == 1
    assert services.environment_delete(actor=world.alice, environment_id=environment.pk, purge=True).purge
    world.bring_to(environment, "deleting", "deleted")
    services.environment_delete(actor=world.alice, environment_id=environment.pk)


def test_extending_is_bounded_by_the_template(world: World) -> None:
    environment = world.running()
    for span in (timedelta(minutes=4), timedelta(hours=73), timedelta(days=-1)):
        with pytest.raises(ValidationError, match="between 5m and 3d"):
            services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=span)
    extended = services.environment_extend(actor=world.alice, environment_id=environment.pk, expires_in=timedelta(hours=72))
    assert extended.expires_at is not None
    assert extended.expires_at > timezone.now() + timedelta(hours=71)


def test_renaming_a_stopped_environment_takes_its_volume_along(world: World) -> None:
    environment = world.bring_to(world.running(), "stopping", "stopped")
    services.environment_rename(actor=world.alice, environment_id=environment.pk, name="new")
    assert selectors.volumes_visible_to(world.alice).get().name == "new"
    world.request(name="nb")
    with pytest.raises(ValidationError, match="already has"):
        services.environment_rename(actor=world.alice, environment_id=environment.pk, name="nb")


def test_a_volume_in_use_cannot_be_purged_and_one_being_purged_is_not_taken_up(world: World) -> None:
    environment = world.running()
    with pytest.raises(Conflict, match="in use by nb"):
        services.volume_purge(actor=world.alice, volume_id=environment.volume_id)
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    world.bring_to(environment, "deleting", "deleted")
    for outsider in (world.charlie, world.bob):
        with pytest.raises(NotFound):
            services.volume_purge(actor=outsider, volume_id=environment.volume_id)
    services.volume_purge(actor=world.lena, volume_id=environment.volume_id)
    assert [volume.pk for volume in selectors.volumes_to_purge(world.vision)] == [environment.volume_id]
    with pytest.raises(Conflict, match="being purged"):
        world.request()
    services.volume_forget(environment.volume_id)
    assert world.request().volume_id != environment.volume_id


def test_events_are_numbered_from_one_without_gaps(world: World) -> None:
    environment = world.running()
    with pytest.raises(DomainError):
        services.environment_start(actor=world.alice, environment_id=environment.pk)
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    services.event_record(environment.pk, "warning", "FailedScheduling", "no room")
    numbers = list(Event.objects.filter(environment=environment).values_list("seq", flat=True))
    environment.refresh_from_db()
    assert numbers == list(range(1, environment.last_seq + 1))


def test_leaving_a_team_stops_what_one_has_there_and_forbids_starting_it(world: World) -> None:
    environment = world.running()
    services.membership_remove(actor=world.lena, team=world.vision, user=world.alice)
    environment.refresh_from_db()
    assert (environment.desired, environment.reason) == (Desired.STOPPED, "LeftTeam")
    world.bring_to(environment, "stopping", "stopped")
    with pytest.raises(Conflict, match="no longer in team vision"):
        services.environment_start(actor=world.alice, environment_id=environment.pk)


def test_members_are_set_by_leads_and_admins_only(world: World) -> None:
    services.membership_set(actor=world.lena, team=world.vision, user=world.charlie, role="engineer")
    with pytest.raises(Forbidden):
        services.membership_set(actor=world.alice, team=world.vision, user=world.alice, role="lead")
    with pytest.raises(NotFound):
        services.membership_set(actor=world.bob, team=world.vision, user=world.bob, role="lead")
    with pytest.raises(ValidationError):
        services.membership_set(actor=world.admin, team=world.vision, user=world.bob, role="king")
