"""The queue over rows: who is admitted, what is told and stored, who may ask for what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from portal.domain import selectors, services
from portal.domain.errors import ValidationError
from portal.domain.lifecycle import Desired, State
from portal.domain.models import Environment, Event, Node, Notification, Priority, Template, Usage
from portal.domain.shape import RoleShape
from tests.portal.world import GIB, World, node

GPU = "nvidia.com/gpu"
A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}


def gpus(name: str = "gpu", count: int = 4, used: int = 0, **more: Any) -> dict[str, Any]:
    return node(name, cpu=64, gib=1024, devices={GPU: count}, devices_used={GPU: used}, labels=A100 | more.pop("labels", {}), **more)


@pytest.fixture
def free(world: World) -> World:
    """Nothing is limited but room."""
    for team in (world.vision, world.speech):
        world.limit("accelerator:nvidia-a100-80g", None, team=team)
    return world


def ask(world: World, name: str, flavor: str = "a100-1", **more: Any) -> Environment:
    """Asked for, and moved into the queue as a worker does."""
    made = world.request(name=name, flavor=flavor, **more)
    assert services.environment_move(made.pk, State.QUEUED)
    made.refresh_from_db()
    return made


def told(environment: Environment) -> dict[str, Any]:
    environment.refresh_from_db()
    return environment.queue


def seen(environment: Environment, name: str, *, gpu: int = 1, pods: int = 1, role: str = "notebook") -> dict[str, Any]:
    """What the watcher says of a node on which its pods are."""
    flavor = environment.flavor
    resources = {"cpu": flavor.cpu_millis * pods, "memory": flavor.memory_bytes * pods, "pods": pods, GPU: gpu * pods}
    found = gpus(name, used=gpu * pods)
    found["used"] = {**found["used"], **resources}
    return found | {"environments": {str(environment.pk): {"roles": {role: pods}, "resources": resources}}}


def test_without_a_picture_of_the_nodes_everybody_is_let_go(free: World) -> None:
    first = ask(free, "one")
    assert services.queue_admit(first.pk)
    services.nodes_observed([gpus(count=4, used=4)])
    second = ask(free, "two")
    assert not services.queue_admit(second.pk)
    Node.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    assert services.queue_pass() == [second.pk], "what is known of the nodes is too old to go by"


def test_one_that_has_to_wait_is_told_why_and_starts_when_there_is_room(free: World) -> None:
    services.nodes_observed([gpus(count=1, used=1)])
    waiting, behind = ask(free, "one"), ask(free, "two")
    assert not services.queue_admit(waiting.pk)
    assert told(waiting) == {
        "position": 1,
        "ahead": 0,
        "code": "WaitingForRoom",
        "message": "waiting for 1 x nvidia-a100-80g: 0 free, 0 environments ahead",
        "eta": None,
    }
    assert told(behind)["message"] == "waiting for 1 x nvidia-a100-80g: 0 free, 1 environment ahead"
    services.nodes_observed([gpus(count=1)])
    assert services.queue_pass() == [waiting.pk]
    assert services.queue_admit(waiting.pk)
    waiting.refresh_from_db()
    assert (waiting.queue, waiting.placement) == ({}, {"queue": "", "nodes": {"gpu": {"notebook": 1}}})
    assert [event.code for event in selectors.events_after(waiting, 0, 99)] == ["Requested", "Queued", "Admitted"]
    assert Usage.objects.filter(environment=waiting, ended_at=None).exists()
    assert told(behind)["position"] == 1
    assert services.queue_pass() == [], "what is promised to the first is not free, though no pod of it is there yet"
    assert told(behind)["eta"] is not None, "the first one's time is granted, so an end is known"


def test_pods_are_not_counted_twice_when_the_nodes_show_them(free: World) -> None:
    services.nodes_observed([gpus(count=2)])
    first = ask(free, "one")
    assert services.queue_admit(first.pk)
    free.bring_to(first, State.PROVISIONING)
    services.nodes_observed([seen(first, "gpu") | {"allocatable": gpus(count=2)["allocatable"]}])
    second, third = ask(free, "two"), ask(free, "three")
    assert services.queue_admit(second.pk)
    assert not services.queue_admit(third.pk)


def test_the_idle_cluster_costs_a_request_few_queries(free: World) -> None:
    services.nodes_observed([gpus(f"gpu{number}") for number in range(20)])
    one = ask(free, "one")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert services.queue_admit(one.pk)
    assert len(queries) <= 20, [query["sql"][:90] for query in queries]
    two = ask(free, "two", expires_in=timedelta(hours=72))
    Node.objects.update(used={GPU: 4})
    assert not services.queue_admit(two.pk)
    with CaptureQueriesContext(connection) as queries:
        assert not services.queue_admit(two.pk)
    assert len(queries) == 1, "it was told already; passes look after it"


def test_what_did_not_change_is_not_written_and_not_announced(free: World, monkeypatch: pytest.MonkeyPatch) -> None:
    services.nodes_observed([gpus(count=1)])
    first = ask(free, "one")
    services.queue_admit(first.pk)
    waiting = ask(free, "two")
    services.queue_pass()
    assert told(waiting)["eta"]
    for _ in range(2):
        with CaptureQueriesContext(connection) as queries:
            services.queue_pass()
        assert not [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]


def test_nodes_that_change_make_a_pass_only_when_somebody_waits(free: World, broker: Any, django_capture_on_commit_callbacks: Any) -> None:
    def observe() -> list[str]:
        with django_capture_on_commit_callbacks(execute=True):
            services.nodes_observed([gpus(count=1, used=1)])
        return [name for name, _ in broker.sent()]

    assert observe() == []
    ask(free, "one")
    broker.sent()
    assert observe() == ["workers.queue"]


def test_one_that_is_stopped_while_it_waits_is_not_admitted(free: World) -> None:
    services.nodes_observed([gpus(count=1)])
    one = ask(free, "one")
    services.environment_stop(actor=free.alice, environment_id=one.pk)
    assert services.queue_pass() == []
    assert not services.queue_admit(one.pk)
    assert not services.queue_admit("00000000-0000-0000-0000-000000000000")


def test_one_whose_pods_found_no_room_goes_back_to_its_old_place(free: World) -> None:
    services.nodes_observed([gpus(count=1)])
    first = ask(free, "one")
    services.queue_admit(first.pk)
    second = ask(free, "two")
    services.queue_pass()
    free.bring_to(first, State.PROVISIONING)
    assert not services.queue_return(first.pk, "Its pods found no node.", generation=first.desired_generation + 1)
    assert services.queue_return(first.pk, "Its pods found no node.", generation=first.desired_generation)
    assert not services.queue_return(first.pk, "again")
    before = first.queued_at
    first.refresh_from_db()
    assert (first.state, first.admitted_at, first.queued_at, first.reason) == (State.QUEUED, None, before, "NoRoom")
    assert not Usage.objects.filter(environment=first, ended_at=None).exists()
    assert free.used("environments") == 2, "its quota is held while it waits"
    Environment.objects.filter(pk=second.pk).update(desired=Desired.STOPPED)
    assert not services.queue_admit(first.pk), "not at once into the same room"
    assert told(first)["message"] == "Its pods found no node."
    services.nodes_observed([gpus(count=2)])
    assert services.queue_pass() == [first.pk], "the nodes have changed"


def test_one_that_came_back_is_tried_again_after_half_a_minute(free: World) -> None:
    services.nodes_observed([gpus(count=1)])
    first = ask(free, "one")
    services.queue_admit(first.pk)
    free.bring_to(first, State.PROVISIONING)
    services.queue_return(first.pk, "Its pods found no node.")
    assert services.queue_pass() == []
    first.refresh_from_db()
    first.placement["returned"]["at"] = (timezone.now() - timedelta(seconds=31)).isoformat()
    first.save(update_fields=["placement"])
    assert services.queue_pass() == [first.pk]


def test_capacity_counts_what_is_promised(free: World) -> None:
    services.nodes_observed([gpus(count=4)])
    one = ask(free, "one", flavor="a100-2")
    services.queue_admit(one.pk)
    rows = {row.flavor.slug: row.capacity for row in selectors.flavors_with_capacity()}
    assert (rows["a100-1"].free, rows["a100-1"].in_use) == (2, 2)
    devices = {row.accelerator.slug: (row.in_use, row.free) for row in selectors.accelerators_with_capacity()}
    assert devices["nvidia-a100-80g"] == (2, 2)
    shape = RoleShape(name="worker", replicas=3, cpu_millis=1000, memory_bytes=GIB, accelerator="nvidia-a100-80g", accelerator_count=1)
    assert selectors.starts_now([shape]) is False


# --- preemption -------------------------------------------------------------------


@pytest.fixture
def pressed(free: World) -> tuple[World, Environment, Environment]:
    """A running environment of low priority that may be stopped, and one that may have it stopped."""
    template = Template.objects.get(slug="notebook")
    template.spec["scheduling"] = {"preemptible": True, "preempt_grace": "2m"}
    template.save()
    services.nodes_observed([gpus(count=1)])
    victim = ask(free, "victim", priority="low")
    assert services.queue_admit(victim.pk)
    free.bring_to(victim, State.PROVISIONING, State.RUNNING)
    services.nodes_observed([seen(victim, "gpu") | {"allocatable": gpus(count=1)["allocatable"]}])
    urgent = ask(free, "urgent", actor=free.lena, priority="high")
    return free, victim, urgent


def test_a_victim_is_warned_and_marked_once(pressed: tuple[World, Environment, Environment]) -> None:
    _, victim, urgent = pressed
    assert services.queue_pass() == []
    assert services.queue_pass() == []
    victim.refresh_from_db()
    assert victim.preempted_for == urgent.pk
    assert victim.preempt_at is not None
    assert timedelta(minutes=1) < victim.preempt_at - timezone.now() <= timedelta(minutes=2)
    warnings = Event.objects.filter(environment=victim, code="PreemptionSoon")
    assert [event.kind for event in warnings] == ["warning"]
    assert "stopped in 2m" in warnings[0].message
    assert Notification.objects.filter(user=victim.owner, code="PreemptionSoon").count() == 1
    assert told(urgent)["promised"]
    assert told(urgent)["eta"]
    assert victim.desired == Desired.RUNNING, "stopping it is the timer's"


def test_the_mark_is_taken_back_when_the_winner_goes_away(pressed: tuple[World, Environment, Environment]) -> None:
    world, victim, urgent = pressed
    services.queue_pass()
    services.environment_stop(actor=world.lena, environment_id=urgent.pk)
    services.queue_pass()
    victim.refresh_from_db()
    assert (victim.preempt_at, victim.preempted_for) == (None, None)
    assert Event.objects.filter(environment=victim, code="PreemptionOff").count() == 1


def test_room_of_a_stopped_victim_is_the_winners(pressed: tuple[World, Environment, Environment]) -> None:
    world, victim, urgent = pressed
    services.queue_pass()
    services.environment_stop(actor=world.alice, environment_id=victim.pk)
    world.bring_to(victim, State.STOPPING)
    services.queue_pass()
    other = ask(world, "other", actor=world.lena, priority="high")
    Environment.objects.filter(pk=other.pk).update(queued_at=timezone.now() - timedelta(hours=1))
    world.bring_to(victim, State.STOPPED)
    services.nodes_observed([gpus(count=1)])
    assert services.queue_pass() == [urgent.pk]


# --- priorities -------------------------------------------------------------------


def test_who_may_use_a_priority(world: World) -> None:
    def of(actor: Any, slug: str, team: Any = None) -> int:
        return services.priority_for(actor=actor, team=team or world.vision, slug=slug).value

    assert (of(world.alice, ""), of(world.alice, "low"), of(world.lena, "high")) == (50, 10, 90)
    with pytest.raises(ValidationError) as caught:
        of(world.alice, "high")
    assert caught.value.errors == {"priority": ["high is for leads of a team only; in team vision you may use normal, low."]}
    with pytest.raises(ValidationError, match="There is no such priority; in team vision you may use normal, low"):
        of(world.alice, "urgent")
    Priority.objects.create(slug="deadline", title={"en": "D"}, value=70, everyone=False).teams.add(world.vision)
    assert of(world.alice, "deadline") == 70
    with pytest.raises(ValidationError, match="deadline is for certain teams only"):
        of(world.bob, "deadline", world.speech)
    Priority.objects.all().delete()
    assert of(world.alice, "") == 50


# --- looking ----------------------------------------------------------------------


def test_a_forecast_is_what_the_queue_would_say(free: World) -> None:
    spec = Template.objects.get(slug="notebook").spec
    shapes = [RoleShape(name="notebook", replicas=1, cpu_millis=1000, memory_bytes=GIB, accelerator="nvidia-a100-80g", accelerator_count=1)]

    def forecast() -> services.Forecast | None:
        return services.forecast(team=free.vision, shapes=shapes, priority_value=50, template_spec=spec)

    assert forecast() is None
    services.nodes_observed([gpus(count=1)])
    free_now = forecast()
    assert free_now is not None
    assert (free_now.position, free_now.ahead) == (0, 0)
    ask(free, "one")
    services.queue_pass()
    full = forecast()
    assert full is not None
    assert (full.position, full.message) == (1, "waiting for 1 x nvidia-a100-80g: 0 free, 0 environments ahead")
    assert full.earliest is not None
    assert full.latest is not None
    assert timezone.now() < full.earliest <= full.latest
    ask(free, "two")
    behind = forecast()
    assert behind is not None
    assert (behind.position, behind.ahead) == (2, 1)
    assert Environment.objects.count() == 2


def test_history_of_early_ends_widens_the_estimate(free: World) -> None:
    for number in range(6):
        old = free.running(name=f"old{number}", flavor="cpu-small")
        services.environment_stop(actor=free.alice, environment_id=old.pk)
        free.bring_to(old, State.STOPPING, State.STOPPED)
    now = timezone.now()
    Usage.objects.update(started_at=now - timedelta(hours=5), ended_at=now - timedelta(hours=4), granted_seconds=8 * 3600)
    services.nodes_observed([gpus(count=1)])
    first = ask(free, "one", expires_in=timedelta(hours=8))
    services.queue_admit(first.pk)
    waiting = ask(free, "two")
    services.queue_pass()
    eta = told(waiting)["eta"]
    assert eta["earliest"][:13] == (now + timedelta(hours=1, minutes=2)).isoformat()[:13]
    assert eta["latest"][:13] == (now + timedelta(hours=8, minutes=2)).isoformat()[:13]


def test_fair_share_between_teams_counts_what_runs(free: World) -> None:
    services.nodes_observed([gpus(count=2)])
    first = ask(free, "one", flavor="a100-1")
    services.queue_admit(first.pk)
    a, b = ask(free, "two", flavor="a100-2"), ask(free, "bobs", actor=free.bob, flavor="a100-2")
    services.queue_pass()
    assert (told(b)["position"], told(a)["position"]) == (1, 2), "vision has a GPU already"


def test_the_queue_as_its_users_see_it(free: World) -> None:
    services.nodes_observed([gpus(count=1, used=1)])
    alices, lenas, bobs = ask(free, "a"), ask(free, "l", actor=free.lena), ask(free, "b", actor=free.bob)
    services.queue_pass()
    line = [told(each)["position"] for each in (alices, lenas, bobs)]
    assert sorted(line) == [1, 2, 3]

    def view(user: Any) -> dict[int, tuple[str, str, str]]:
        return {entry.position: (entry.environment.name if entry.environment else "", entry.team, entry.flavor) for entry in selectors.queue_of(user)}

    assert view(free.alice) == {line[0]: ("a", "vision", "a100-1"), line[1]: ("", "vision", "a100-1"), line[2]: ("", "", "")}
    assert view(free.lena) == {line[0]: ("a", "vision", "a100-1"), line[1]: ("l", "vision", "a100-1"), line[2]: ("", "", "")}
    assert view(free.charlie) == {1: ("", "", ""), 2: ("", "", ""), 3: ("", "", "")}
    assert {name for name, _, _ in view(free.admin).values()} == {"a", "l", "b"}


def test_topology_becomes_part_of_the_placement(free: World, settings: Any) -> None:
    settings.TOPOLOGY_LABELS = {"rack": "example.com/rack"}
    template = Template.objects.get(slug="dask")
    template.spec["scheduling"] = {"topology": {"level": "rack", "mode": "required"}}
    template.save()
    nodes = [gpus(f"n{number}", count=2, used=number == 0, labels={"example.com/rack": f"r{number // 2}"}) for number in range(4)]
    services.nodes_observed(nodes)
    cluster = ask(free, "dk", template="dask", params={"workers": 4})
    assert services.queue_admit(cluster.pk)
    cluster.refresh_from_db()
    assert cluster.placement["topology"] == {"key": "example.com/rack", "value": "r1", "required": True}
    second = ask(free, "dk2", template="dask", params={"workers": 4})
    services.queue_pass()
    assert told(second)["code"] == "WaitingForRoom"
    third = ask(free, "dk3", template="dask", params={"workers": 5})
    services.queue_pass()
    assert told(third)["message"].startswith("it cannot start any more: it does not fit within one rack, even when that is empty")


def test_pods_that_come_one_by_one_are_admitted_when_the_first_of_each_role_fits_and_are_promised_no_more(world: World) -> None:
    spec = Template.objects.get(slug="dask").spec
    services.template_store(spec=spec | {"version": spec["version"] + 1, "scheduling": {"gang": False}})
    services.nodes_observed([node("one", cpu=4, used_cpu=1)])
    grid = ask(world, "grid", "cpu-small", template="dask", params={"workers": 8})
    assert grid.reserved["cpu"] == 9000, "all of it is charged"
    assert services.queue_pass() == [grid.pk]
    grid.refresh_from_db()
    assert grid.placement["nodes"] == {"one": {"scheduler": 1, "worker": 1}}
    other = ask(world, "other", "cpu-small")
    assert services.queue_pass() == [other.pk], "the seven others hold no room until they are on a node"
    services.template_store(spec=spec | {"version": spec["version"] + 2})
    together = ask(world, "together", "cpu-small", template="dask", params={"workers": 8})
    assert services.queue_pass() == []
    assert "do not fit" in told(together)["message"]
