"""Storages: who may use which, secrets that are never shown, what environments mount, and the team's quota for what it shares."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.fernet import Fernet

from portal.domain import selectors, services, vault
from portal.domain.errors import Conflict, Forbidden, NotFound, QuotaExceeded, ValidationError
from portal.domain.models import Environment, Event, Storage, StorageGrant, StorageSecret, TeamClaim
from tests.portal.world import World, make_world

TEAM = {"storage": "team-shared"}
GIB = 2**30


def enabled(slug: str) -> Storage:
    Storage.objects.filter(slug=slug).update(enabled=True)
    return Storage.objects.get(slug=slug)


def grant(world: World, slug: str, access: str = "write", team: Any = None) -> Storage:
    storage = enabled(slug)
    services.storage_grant_set(actor=world.admin, storage=storage, team=team or world.vision, access=access)
    return storage


def with_secrets(world: World, storage: Storage) -> Storage:
    for key in storage.secret_keys:
        services.storage_secret_set(actor=world.admin, storage=storage, key=key, value=b"top-secret")
    return storage


def refused(world: World, *wishes: Any, **more: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        world.request(mounts=list(wishes), **more)
    assert not Environment.objects.exists()
    return caught.value.errors


# --- who may use what ------------------------------------------------------------------


def test_what_works_everywhere_is_for_every_team_and_the_rest_needs_a_grant(world: World) -> None:
    assert {slug: may for slug, (_, may) in selectors.storage_access(world.vision).items()} == {
        "scratch-disk": "write",
        "scratch-memory": "write",
        "team-shared": "write",
    }
    grant(world, "nas", "read")
    assert selectors.storage_access(world.vision)["nas"][1] == "read"
    assert "nas" not in selectors.storage_access(world.speech)
    assert {use.storage.slug: use.access for use in selectors.storages_usable_by(world.alice)}["nas"] == {"vision": "read"}
    assert selectors.storages_usable_by(world.charlie) == []
    Storage.objects.filter(slug="nas").update(enabled=False)
    assert "nas" not in selectors.storage_access(world.vision)


def test_only_platform_admins_grant_and_write_secrets(world: World) -> None:
    storage = enabled("cephfs")
    for person in (world.alice, world.lena, world.charlie):
        with pytest.raises(Forbidden):
            services.storage_grant_set(actor=person, storage=storage, team=world.vision, access="write")
        with pytest.raises(Forbidden):
            services.storage_grant_remove(actor=person, storage=storage, team=world.vision)
        with pytest.raises(Forbidden):
            services.storage_secret_set(actor=person, storage=storage, key="userKey", value=b"x")
        with pytest.raises(Forbidden):
            services.storage_secret_clear(actor=person, storage=storage, key="userKey")
    assert not StorageGrant.objects.exists()
    assert not StorageSecret.objects.exists()
    with pytest.raises(ValidationError):
        services.storage_grant_set(actor=world.admin, storage=storage, team=world.vision, access="all")


def test_a_grant_and_a_secret_wake_the_worker_of_the_teams_concerned(transactional_db: None, broker: Any) -> None:
    world = make_world()
    broker.sent()
    storage = grant(world, "cephfs")
    assert broker.sent() == [("workers.team_sync", ("vision",))]
    services.storage_secret_set(actor=world.admin, storage=storage, key="userKey", value=b"x")
    assert broker.sent() == [("workers.team_sync", ("vision",))]
    services.storage_grant_remove(actor=world.admin, storage=storage, team=world.vision)
    assert broker.sent() == [("workers.team_sync", ("vision",))]


# --- secrets -----------------------------------------------------------------------------


def test_a_secret_is_encrypted_at_rest_and_only_workers_read_it(world: World) -> None:
    storage = grant(world, "cephfs")
    services.storage_secret_set(actor=world.admin, storage=storage, key="userKey", value=b"top-secret \xff")
    row = StorageSecret.objects.get()
    assert "top-secret" not in row.sealed
    assert (row.set_by, row.key) == (world.admin, "userKey")
    assert services.storage_secrets(storage) == {"userKey": b"top-secret \xff"}
    services.storage_secret_set(actor=world.admin, storage=storage, key="userKey", value=b"other")
    assert services.storage_secrets(storage) == {"userKey": b"other"}
    assert services.storage_secret_clear(actor=world.admin, storage=storage, key="userKey")
    assert services.storage_secrets(storage) == {}


@pytest.mark.parametrize(("key", "value"), [("nope", b"x"), ("userKey", b""), ("userKey", b"x" * (512 * 1024 + 1))])
def test_a_secret_must_be_one_that_the_storage_names_and_fit_into_an_object(world: World, key: str, value: bytes) -> None:
    with pytest.raises(ValidationError):
        services.storage_secret_set(actor=world.admin, storage=enabled("cephfs"), key=key, value=value)


def test_a_key_can_be_replaced_and_a_lost_one_is_told(settings: Any) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.STORAGE_KEY = old
    sealed = vault.seal(b"x")
    settings.STORAGE_KEY = f"{new} {old}"
    assert vault.unseal(sealed) == b"x"
    settings.STORAGE_KEY = new
    with pytest.raises(vault.VaultError, match="write it anew"):
        vault.unseal(sealed)
    settings.STORAGE_KEY = "short"
    with pytest.raises(vault.VaultError, match="not a Fernet key"):
        vault.seal(b"x")


def test_no_secret_is_in_an_environments_row_or_its_history(world: World) -> None:
    with_secrets(world, grant(world, "s3"))
    environment = world.request(mounts=[{"storage": "s3"}])
    row = json.dumps([list(Environment.objects.filter(pk=environment.pk).values("mounts", "template_spec", "params")), list(Event.objects.values("message"))])
    assert "top-secret" not in row
    assert '"secret": "secretAccessKey"' in row


# --- mounting ----------------------------------------------------------------------------


def test_a_mount_has_the_storages_place_and_the_teams_right(world: World) -> None:
    grant(world, "nas", "read")
    environment = world.request(mounts=[{"storage": "nas"}, {"storage": "scratch-disk", "mount_path": "/mnt/tmp"}])
    nas, scratch = environment.mounts
    assert (nas["mount_path"], nas["read_only"], nas["access"], nas["document"]["nfs"]["server"]) == ("/mnt/nas", True, "read", "nas.example.com")
    assert (scratch["mount_path"], scratch["read_only"]) == ("/mnt/tmp", False)


def test_one_may_choose_to_read_only(world: World) -> None:
    grant(world, "nas", "write")
    (entry,) = world.request(mounts=[{"storage": "nas", "read_only": True}]).mounts
    assert (entry["read_only"], entry["access"]) == (True, "write")


def test_a_storage_without_a_grant_is_refused_and_the_ones_there_are_named(world: World) -> None:
    enabled("nas")
    (message,) = refused(world, {"storage": "nas"})["mounts.0.storage"]
    assert "scratch-disk" in message
    assert "platform admin" in message
    assert refused(world, {"storage": "no-such"}).keys() == {"mounts.0.storage"}


def test_a_storage_whose_secrets_are_not_set_is_refused_and_says_which(world: World) -> None:
    storage = grant(world, "s3")
    services.storage_secret_set(actor=world.admin, storage=storage, key="accessKeyID", value=b"AK")
    (message,) = refused(world, {"storage": "s3"})["mounts.0.storage"]
    assert message == "s3 cannot be used yet: a platform admin has to set its secrets secretAccessKey."


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ("nas", "mounts.0"),
        ({}, "mounts.0"),
        ({"storage": "scratch-disk", "ref": "dataset:x"}, "mounts.0"),
        ({"storage": "scratch-disk", "colour": 1}, "mounts.0.colour"),
        ({"storage": "scratch-disk", "read_only": "yes"}, "mounts.0.read_only"),
        ({"storage": "scratch-disk", "read_only": True}, "mounts.0.read_only"),
        ({"storage": "scratch-disk", "mount_path": "mnt"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/mnt/../etc"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/mnt/"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/etc/x"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/scratch"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/mnt/a b"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": 7}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/home/jovyan"}, "mounts.0.mount_path"),
        ({"storage": "scratch-disk", "mount_path": "/home"}, "mounts.0.mount_path"),
        ({"ref": "imagenet"}, "mounts.0.ref"),
        ({"ref": "dataset:imagenet@0"}, "mounts.0.ref"),
        ({"ref": "dataset:../x"}, "mounts.0.ref"),
    ],
)
def test_a_wrong_wish_names_its_field(world: World, wish: Any, field: str) -> None:
    assert list(refused(world, wish)) == [field]


def test_mounts_must_be_a_list_and_not_too_long(world: World) -> None:
    for wishes in ("x", {"storage": "nas"}, 7, [{"storage": "scratch-disk"}] * 33):
        with pytest.raises(ValidationError) as caught:
            world.request(mounts=wishes)
        assert "mounts" in caught.value.errors


def test_two_mounts_do_not_lie_on_each_other_but_may_lie_in_the_home(world: World) -> None:
    assert "mounts.1.mount_path" in refused(world, {"storage": "scratch-disk"}, {"storage": "scratch-memory", "mount_path": "/mnt/scratch/x"})
    assert "mounts.1.mount_path" in refused(world, {"storage": "scratch-disk"}, {"storage": "scratch-disk"})
    (entry,) = world.request(mounts=[{"storage": "scratch-disk", "mount_path": "/home/jovyan/fast"}]).mounts
    assert entry["mount_path"] == "/home/jovyan/fast"


def test_two_storages_that_set_the_same_variable_are_not_given_together(world: World) -> None:
    document = dict(with_secrets(world, grant(world, "s3")).spec) | {"slug": "s3-two"}
    other = with_secrets(world, Storage.objects.create(slug="s3-two", kind="object", spec=document))
    services.storage_grant_set(actor=None, storage=other, team=world.vision, access="read")
    (message,) = refused(world, {"storage": "s3"}, {"storage": "s3-two"})["mounts.1.mount_path"]
    assert message == "s3-two and s3 both set the variable AWS_ACCESS_KEY_ID; choose one of them."


def test_a_storage_that_gives_variables_only_is_not_mounted_at_a_path(world: World) -> None:
    with_secrets(world, grant(world, "s3"))
    assert "mounts.0.mount_path" in refused(world, {"storage": "s3", "mount_path": "/mnt/s3"})
    assert world.request(mounts=[{"storage": "s3"}]).mounts[0]["mount_path"] == ""


# --- starting again -----------------------------------------------------------------------


def stopped(world: World, **wish: Any) -> Environment:
    environment = world.running(**wish)
    services.environment_stop(actor=world.alice, environment_id=environment.pk)
    return world.bring_to(environment, "stopping", "stopped")


def test_a_start_takes_the_storage_as_it_is_now(world: World) -> None:
    storage = grant(world, "nas", "write")
    environment = stopped(world, mounts=[{"storage": "nas"}])
    storage.spec["nfs"]["server"] = "new.example.com"
    storage.save()
    services.storage_grant_set(actor=world.admin, storage=storage, team=world.vision, access="read")
    services.environment_start(actor=world.alice, environment_id=environment.pk)
    environment.refresh_from_db()
    (entry,) = environment.mounts
    assert (entry["document"]["nfs"]["server"], entry["read_only"], entry["access"]) == ("new.example.com", True, "read")


def test_a_start_is_refused_when_the_grant_is_gone(world: World) -> None:
    storage = grant(world, "nas")
    environment = stopped(world, mounts=[{"storage": "nas"}])
    services.storage_grant_remove(actor=world.admin, storage=storage, team=world.vision)
    with pytest.raises(Conflict, match="may not use storage nas any more"):
        services.environment_start(actor=world.alice, environment_id=environment.pk)


# --- shared claims --------------------------------------------------------------------------


def test_the_first_use_of_a_shared_volume_takes_the_teams_storage_and_the_second_nothing(world: World) -> None:
    preview = services.environment_preview(actor=world.alice, name="a", template="dask", flavor="cpu-small", team="", mounts=[TEAM])
    assert preview.storage_bytes == 100 * GIB
    assert [(effect.scope, effect.amount) for effect in preview.quota if effect.resource == "storage"] == [("team", 100 * GIB)]
    first = world.request(name="a", template="dask", mounts=[TEAM])
    second = world.request(name="b", template="dask", mounts=[TEAM])
    claim = TeamClaim.objects.get()
    assert first.mounts[0]["claim"] == second.mounts[0]["claim"] == claim.claim
    assert world.used("storage") == 100 * GIB
    assert world.used("storage", user=world.alice) == 0
    assert services.quota_recompute() == []


def test_a_full_quota_refuses_the_shared_volume_and_nothing_is_left(world: World) -> None:
    world.limit("storage", 50 * GIB)
    preview = services.environment_preview(actor=world.alice, name="a", template="dask", flavor="cpu-small", team="", mounts=[TEAM])
    assert not preview.allowed
    with pytest.raises(QuotaExceeded, match="Team vision may use 50 GiB"):
        world.request(name="a", template="dask", mounts=[TEAM])
    assert not Environment.objects.exists()
    assert not TeamClaim.objects.exists()
    assert world.used("cpu") == 0


def test_a_shared_volume_is_purged_by_an_admin_when_nothing_uses_it(world: World) -> None:
    environment = world.request(template="dask", mounts=[TEAM])
    claim = TeamClaim.objects.get()
    for person in (world.alice, world.lena):
        with pytest.raises(Forbidden):
            services.team_claim_purge(actor=person, claim_id=claim.pk)
    with pytest.raises(Conflict, match="mounted by nb"):
        services.team_claim_purge(actor=world.admin, claim_id=claim.pk)
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    world.bring_to(environment, "deleting", "deleted")
    services.artifact_create(actor=world.alice, kind="dataset", name="d")
    services.artifact_version_add(actor=world.alice, kind="dataset", name="d", storage="team-shared", path="d")
    with pytest.raises(Conflict, match="dataset:d@1"):
        services.team_claim_purge(actor=world.admin, claim_id=claim.pk)
    services.artifact_delete(actor=world.alice, kind="dataset", name="d")
    services.team_claim_purge(actor=world.admin, claim_id=claim.pk)
    with pytest.raises(Conflict, match="being purged"):
        world.request(name="again", template="dask", mounts=[TEAM])
    assert services.team_claim_forget(claim.pk)
    assert not services.team_claim_forget(claim.pk)
    assert world.used("storage") == 0
    with pytest.raises(NotFound):
        services.team_claim_purge(actor=world.admin, claim_id=claim.pk)
