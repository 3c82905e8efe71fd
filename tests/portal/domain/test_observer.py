"""What workers call: moves, snapshots, leases, archives, nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from portal.domain import selectors, services
from portal.domain.lifecycle import MOVES, Desired, State
from portal.domain.models import Environment, Node
from tests.portal.world import World, node


@pytest.fixture(autouse=True)
def _archive_in_a_folder_of_the_test(settings: Any, tmp_path: Any) -> None:
    archive = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path / "archive")}}
    settings.STORAGES = settings.STORAGES | {"archive": archive}


@pytest.mark.parametrize("origin", list(State))
@pytest.mark.parametrize("target", list(State))
def test_only_moves_of_the_lifecycle_are_made(world: World, origin: State, target: State) -> None:
    environment = world.request()
    Environment.objects.filter(pk=environment.pk).update(state=origin.value)
    assert services.environment_move(environment.pk, target) == (target in MOVES[origin])
    environment.refresh_from_db()
    assert environment.state == (target if target in MOVES[origin] else origin)


def test_a_move_planned_against_an_older_wish_is_dropped(world: World) -> None:
    environment = world.running()
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    assert not services.environment_move(environment.pk, "failed", generation=environment.desired_generation)
    assert services.environment_move(environment.pk, "stopping", generation=environment.desired_generation + 1)


def test_the_observer_cannot_queue_what_holds_no_quota(world: World) -> None:
    environment = world.bring_to(world.running(), "failed")
    assert not services.environment_move(environment.pk, "queued")


def test_running_time_counts_from_the_first_running_and_not_again_when_a_lost_pod_came_back(world: World) -> None:
    environment = world.request(expires_in=timedelta(hours=1))
    Environment.objects.filter(pk=environment.pk).update(expires_at=timezone.now() + timedelta(minutes=1))
    world.bring_to(environment, "queued", "provisioning", "running")
    assert environment.expires_at is not None
    assert environment.expires_at > timezone.now() + timedelta(minutes=59)
    before = environment.expires_at
    world.bring_to(environment, "provisioning", "running")
    assert environment.expires_at == before


def test_expiry_stops_and_the_reason_outlives_the_way_down(world: World) -> None:
    environment = world.running()
    assert not services.environment_expire(environment.pk), "its time is not over"
    Environment.objects.filter(pk=environment.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert selectors.environments_expired(timezone.now()) == [environment.pk]
    assert services.environment_expire(environment.pk)
    assert not services.environment_expire(environment.pk)
    assert selectors.environments_expired(timezone.now()) == []
    services.environment_observe(environment.pk, {"replicas": []}, reason="Error", message="the container ended with 143")
    world.bring_to(environment, "stopping", "stopped")
    assert (environment.desired, environment.reason) == (Desired.STOPPED, "Expired")
    assert "time was over" in environment.message


def test_a_snapshot_is_announced_only_when_it_differs(world: World) -> None:
    environment = world.running()
    assert services.environment_observe(environment.pk, {"replicas": [{"name": "p"}]}, reason="Pulling", message="pulling")
    assert not services.environment_observe(environment.pk, {"replicas": [{"name": "p"}]}, reason="Pulling", message="pulling")
    assert services.environment_observe(environment.pk, {"replicas": []})
    environment.refresh_from_db()
    assert (environment.reason, environment.observed) == ("Pulling", {"replicas": []})


def test_an_event_of_the_same_source_is_recorded_once(world: World) -> None:
    environment = world.request()
    assert services.event_record(environment.pk, "warning", "BackOff", "once", source="uid-1/3")
    assert not services.event_record(environment.pk, "warning", "BackOff", "twice", source="uid-1/3")
    assert services.event_record(environment.pk, "warning", "BackOff", "nul \x00 inside")
    assert services.event_record(environment.pk, "warning", "BackOff", "no source counts anew")


def test_one_holder_at_a_time_has_the_lease_and_an_expired_one_is_taken_over(world: World) -> None:
    environment = world.request()
    taken = services.lease_take(environment.pk, "one", 60)
    assert taken == environment
    assert services.lease_take(environment.pk, "two", 60) is None
    assert not services.lease_release(environment.pk, "two", 5)
    Environment.objects.filter(pk=environment.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert services.lease_take(environment.pk, "two", 60) == environment
    assert not services.lease_release(environment.pk, "one", 5), "lost meanwhile"
    assert services.lease_release(environment.pk, "two", timedelta(seconds=30), failed=True)
    environment.refresh_from_db()
    assert environment.attempts == 1
    assert environment.next_check_at > timezone.now() + timedelta(seconds=20)


def test_a_wish_or_a_wake_up_during_the_lease_is_looked_at_at_once(world: World) -> None:
    environment = world.running()
    for disturb in (
        lambda: services.environment_stop(actor=world.alice, environment_id=environment.pk),
        lambda: services.lease_take(environment.pk, "two", 60),
    ):
        services.lease_take(environment.pk, "one", 60)
        disturb()
        assert environment.pk not in selectors.environments_due(timezone.now(), 10), "not while the lease is held"
        services.lease_release(environment.pk, "one", 600)
        assert environment.pk in selectors.environments_due(timezone.now(), 10)
    services.lease_take(environment.pk, "one", 60)
    services.lease_release(environment.pk, "one", 600)
    assert environment.pk not in selectors.environments_due(timezone.now(), 10)


def test_a_renewed_lease_goes_on_and_keeps_the_mark_of_one_who_was_kept_out(world: World) -> None:
    environment = world.request()
    services.lease_take(environment.pk, "one", 10)
    Environment.objects.filter(pk=environment.pk).update(lease_until=timezone.now() + timedelta(seconds=1))
    assert services.lease_renew(environment.pk, "one", 60)
    environment.refresh_from_db()
    assert environment.lease_until > timezone.now() + timedelta(seconds=50)
    assert environment.next_check_at > environment.lease_until, "nobody asked for a look"
    assert services.lease_take(environment.pk, "two", 60) is None
    assert services.lease_renew(environment.pk, "one", 60)
    assert services.lease_release(environment.pk, "one", 600)
    assert environment.pk in selectors.environments_due(timezone.now(), 10), "the mark was kept"


def test_a_lease_that_went_to_another_is_not_renewed_and_one_that_only_ran_out_is(world: World) -> None:
    environment = world.request()
    services.lease_take(environment.pk, "one", 60)
    Environment.objects.filter(pk=environment.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert services.lease_renew(environment.pk, "one", 60)
    assert services.lease_take(environment.pk, "two", 60) is None
    Environment.objects.filter(pk=environment.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert services.lease_take(environment.pk, "two", 60) == environment
    assert not services.lease_renew(environment.pk, "one", 60)
    assert services.lease_release(environment.pk, "two", 0)
    assert not services.lease_renew(environment.pk, "two", 60), "it was given back"


def test_a_back_off_holds_against_messages_and_ends_with_what_a_user_asks_for(world: World) -> None:
    environment = world.running()
    for attempts in (1, 2):
        Environment.objects.filter(pk=environment.pk).update(lease_until=None)
        services.lease_take(environment.pk, "one", 60)
        assert services.lease_take(environment.pk, "two", 60) is None  # asks for another look, which is no reason to try sooner
        services.lease_release(environment.pk, "one", 30, failed=True, generation=environment.desired_generation)
        assert services.lease_take(environment.pk, "two", 60) is None
        environment.refresh_from_db()
        assert environment.attempts == attempts
        assert environment.next_check_at > timezone.now() + timedelta(seconds=20)
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    assert environment.pk in selectors.environments_due(timezone.now(), 10)
    assert services.lease_take(environment.pk, "two", 60) == environment


def test_what_a_user_asks_for_during_a_try_that_fails_is_tried_at_once(world: World) -> None:
    environment = world.running()
    services.lease_take(environment.pk, "one", 60)
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    services.lease_release(environment.pk, "one", 30, failed=True, generation=environment.desired_generation)
    environment.refresh_from_db()
    assert environment.attempts == 0
    assert environment.pk in selectors.environments_due(timezone.now(), 10)
    assert services.lease_take(environment.pk, "two", 60) == environment


def test_a_snapshot_that_shows_nothing_new_writes_nothing(world: World, django_assert_num_queries: Any) -> None:
    environment = world.running()
    services.environment_observe(environment.pk, {"replicas": []}, reason="", message="")
    with django_assert_num_queries(1):
        assert not services.environment_observe(environment.pk, {"replicas": []}, reason="", message="", generation=environment.desired_generation)
    with django_assert_num_queries(2):
        assert services.environment_observe(environment.pk, {"replicas": [{}]}, generation=environment.desired_generation)
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    assert not services.environment_observe(environment.pk, {}, generation=environment.desired_generation), "seen for an older wish"


def test_unknown_ids_are_ignored(world: World) -> None:
    for unknown in (uuid4(), "nonsense"):
        assert not services.environment_move(unknown, "queued")
        assert not services.environment_observe(unknown, {})
        assert not services.environment_expire(unknown)
        assert not services.event_record(unknown, "info", "X", "x")
        assert services.lease_take(unknown, "one", 1) is None
        assert not services.lease_release(unknown, "one", 1)
        assert not services.archive_store(unknown, "p", "r", "c", b"")
        assert not services.volume_forget(unknown)


def test_an_archive_is_replaced_and_stays_inside_its_folder(world: World, tmp_path: Any) -> None:
    environment = world.request()
    assert services.archive_store(environment.pk, "../../pod", "worker", "c/../..", b"first", False)
    assert services.archive_store(environment.pk, "../../pod", "worker", "c/../..", b"\xff\x00second", True)
    (archive,) = selectors.archives_of(environment)
    assert selectors.archive_read(archive) == b"\xff\x00second"
    assert (archive.size_bytes, archive.truncated) == (8, True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert (tmp_path / "archive") in files[0].parents


def test_nodes_are_replaced_as_a_whole(world: World) -> None:
    services.nodes_observed([node("a"), node("b")])
    services.nodes_observed([node("b", cpu=4, simulated=True)])
    (only,) = Node.objects.all()
    assert (only.name, only.allocatable["cpu"], only.simulated) == ("b", 4000, True)


def test_capacity_counts_replicas_that_fit_and_those_that_start_now(world: World) -> None:
    gpu = {"devices": {"nvidia.com/gpu": 8}, "labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, "simulated": True}
    services.nodes_observed([node("cpu", cpu=4, gib=16, used_cpu=1.5), node("gpu", cpu=64, gib=1024, devices_used={"nvidia.com/gpu": 3}, **gpu)])
    world.limit("accelerator:nvidia-a100-80g", 2)
    rows = {row.flavor.slug: row for row in selectors.flavors_with_capacity(world.alice)}
    small, a100 = rows["cpu-small"], rows["a100-1"]
    assert (small.capacity.total, small.capacity.free, small.capacity.simulated) == (4 + 64, 2 + 64, False)
    assert (a100.capacity.total, a100.capacity.free, a100.capacity.in_use, a100.capacity.simulated) == (8, 5, 3, True)
    assert a100.starts_now == 2, "the quota is tighter than the nodes"
    assert rows["ascend910-1"].capacity.fits is False
    assert "huawei.com/Ascend910" in rows["ascend910-1"].capacity.reason
    devices = {row.accelerator.slug: (row.total, row.in_use, row.free, row.simulated) for row in selectors.accelerators_with_capacity()}
    assert devices["nvidia-a100-80g"] == (8, 3, 5, True)
    assert devices["ascend-910"] == (0, 0, 0, False)


def test_clusters_of_an_owner_are_those_that_are_up_or_coming_up(world: World) -> None:
    cluster = world.running(template="dask", name="dk")
    world.request(template="dask", name="not-yet")
    world.running(actor=world.lena, template="dask", name="lenas")
    world.running()
    assert list(selectors.clusters_of(world.alice)) == [cluster]
    services.environment_stop(actor=world.alice, environment_id=cluster.pk)
    assert list(selectors.clusters_of(world.alice)) == []
