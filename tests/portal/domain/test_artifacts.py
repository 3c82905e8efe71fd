"""Datasets and models: who sees and changes them, versions that are pinned, lineage, and data that is not purged while something names it."""

from __future__ import annotations

from typing import Any

import pytest

from portal.domain import selectors, services
from portal.domain.errors import Conflict, Forbidden, NotFound, ValidationError
from portal.domain.models import Artifact, ArtifactVersion, Environment, Storage, User, Volume
from tests.portal.world import World

from .test_storages import grant

SHA = "sha256:" + "a" * 64


def dataset(world: World, name: str = "imagenet", *, actor: User | None = None, visibility: str = "team", storage: str = "team-shared") -> ArtifactVersion:
    actor = actor or world.alice
    services.artifact_create(actor=actor, kind="dataset", name=name, visibility=visibility)
    return add(actor, name, storage=storage)


def add(actor: User, name: str, kind: str = "dataset", **more: Any) -> ArtifactVersion:
    return services.artifact_version_add(actor=actor, kind=kind, name=name, **({"path": f"{name}/v"} | more))


def seen(user: User) -> set[str]:
    return {str(row) for row in selectors.artifacts_visible_to(user)}


def test_who_sees_what(world: World) -> None:
    eve = User.objects.create(username="eve")
    services.membership_set(actor=None, team=world.vision, user=eve, role="engineer")
    for visibility in ("private", "team", "everyone"):
        dataset(world, visibility, visibility=visibility)
    every = {"dataset:private", "dataset:team", "dataset:everyone"}
    assert seen(world.alice) == seen(world.lena) == seen(world.admin) == every
    assert seen(eve) == {"dataset:team", "dataset:everyone"}
    assert seen(world.bob) == seen(world.charlie) == {"dataset:everyone"}
    services.user_deactivate(actor=world.admin, user=eve)
    eve.refresh_from_db()
    assert seen(eve) == set()


def test_an_outsider_is_told_that_there_is_none_and_one_who_may_look_that_he_may_not(world: World) -> None:
    dataset(world, "ours")
    dataset(world, "open", visibility="everyone")
    verbs: tuple[tuple[Any, dict[str, Any]], ...] = (
        (services.artifact_update, {"description": "mine"}),
        (services.artifact_delete, {}),
        (services.artifact_version_delete, {"number": 1}),
        (services.artifact_version_add, {"path": "x", "storage": "team-shared"}),
    )
    for verb, more in verbs:
        with pytest.raises(NotFound):
            verb(actor=world.bob, kind="dataset", name="ours", **more)
        with pytest.raises(Forbidden, match="alice"):
            verb(actor=world.bob, kind="dataset", name="open", **more)
    assert Artifact.objects.count() == ArtifactVersion.objects.count() == 2


@pytest.mark.parametrize("name", ["", "Big", "a/b", "-x", "x" * 61, "ü", None])
def test_a_wrong_name_is_refused(world: World, name: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        services.artifact_create(actor=world.alice, kind="model", name=name)
    assert list(caught.value.errors) == ["name"]


def test_a_name_is_given_once_for_each_kind(world: World) -> None:
    dataset(world, "x")
    services.artifact_create(actor=world.bob, kind="model", name="x")
    with pytest.raises(ValidationError, match="already"):
        services.artifact_create(actor=world.bob, kind="dataset", name="x")
    with pytest.raises(ValidationError):
        services.artifact_create(actor=world.charlie, kind="dataset", name="y")  # in no team


def test_numbers_grow_and_are_not_given_again(world: World) -> None:
    dataset(world, "x")
    assert add(world.alice, "x", storage="team-shared", checksum=SHA, format="parquet", size_bytes=7).reference == "dataset:x@2"
    services.artifact_version_delete(actor=world.lena, kind="dataset", name="x", number=2)
    assert add(world.lena, "x", storage="team-shared").number == 3
    with pytest.raises(NotFound):
        services.artifact_version_delete(actor=world.alice, kind="dataset", name="x", number=2)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"path": "../other"}, "path"),
        ({"path": ""}, "path"),
        ({"path": "/"}, "path"),
        ({"path": "a/../../b"}, "path"),
        ({"path": "a\nb"}, "path"),
        ({"checksum": "abc"}, "checksum"),
        ({"format": "a b"}, "format"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"storage": ""}, "storage"),
        ({"storage": "nas"}, "storage"),
        ({"storage": "scratch-disk"}, "storage"),
    ],
)
def test_a_version_that_leads_nowhere_is_refused(world: World, changes: dict[str, Any], field: str) -> None:
    services.artifact_create(actor=world.alice, kind="dataset", name="x")
    with pytest.raises(ValidationError) as caught:
        add(world.alice, "x", **({"storage": "team-shared"} | changes))
    assert list(caught.value.errors) == [field]
    assert not ArtifactVersion.objects.exists()


# --- mounting -----------------------------------------------------------------------


def test_a_reference_is_pinned_when_it_is_asked_for(world: World) -> None:
    dataset(world, "imagenet")
    environment = world.request(mounts=[{"ref": "dataset:imagenet@latest"}])
    (entry,) = environment.mounts
    assert (entry["ref"], entry["mount_path"], entry["read_only"], entry["sub_path"]) == ("dataset:imagenet@1", "/datasets/imagenet", True, "imagenet/v")
    add(world.alice, "imagenet", storage="team-shared")
    later = world.request(name="later", mounts=[{"ref": "dataset:imagenet"}, {"ref": "dataset:imagenet@1", "mount_path": "/datasets/old"}])
    assert [(entry["ref"], entry["mount_path"]) for entry in later.mounts] == [
        ("dataset:imagenet@2", "/datasets/imagenet"),
        ("dataset:imagenet@1", "/datasets/old"),
    ]
    environment.refresh_from_db()
    assert environment.mounts[0]["ref"] == "dataset:imagenet@1"


def mount_error(world: World, actor: User, reference: str) -> str:
    with pytest.raises(ValidationError) as caught:
        world.request(actor=actor, mounts=[{"ref": reference}])
    return caught.value.errors["mounts.0.ref"][0]


def test_what_is_not_shown_looks_like_what_is_not_there(world: World) -> None:
    dataset(world, "ours")
    assert mount_error(world, world.bob, "dataset:ours") == mount_error(world, world.bob, "dataset:nothing")
    assert "there are 1" in mount_error(world, world.alice, "dataset:ours@7")


def test_a_dataset_for_everyone_still_needs_the_teams_grant_on_its_storage(world: World) -> None:
    grant(world, "nas", "read")
    dataset(world, "open", visibility="everyone", storage="nas")
    assert "platform admin can grant" in mount_error(world, world.bob, "dataset:open")
    grant(world, "nas", "write", team=world.speech)
    (entry,) = world.request(actor=world.bob, mounts=[{"ref": "dataset:open"}]).mounts
    assert (entry["access"], entry["read_only"]) == ("write", True)


def test_what_lies_in_a_teams_own_volume_is_for_its_environments_only(world: World) -> None:
    dataset(world, "shared", visibility="everyone")
    assert "shared volume of team vision" in mount_error(world, world.bob, "dataset:shared")
    model_of_home(world, visibility="everyone")
    assert "volume of team vision" in mount_error(world, world.bob, "model:resnet")


def model_of_home(world: World, visibility: str = "team") -> tuple[Environment, ArtifactVersion]:
    dataset(world, "imagenet") if not Artifact.objects.filter(name="imagenet").exists() else None
    environment = world.running(mounts=[{"ref": "dataset:imagenet@1"}])
    services.artifact_create(actor=world.alice, kind="model", name="resnet", visibility=visibility)
    return environment, add(world.alice, "resnet", "model", environment_id=environment.pk, path="runs/1", format="onnx")


def test_a_model_of_a_home_volume_keeps_its_lineage_and_is_mounted_from_there(world: World) -> None:
    environment, version = model_of_home(world)
    assert version.lineage == {
        "environment": str(environment.pk),
        "name": "nb",
        "template": "notebook",
        "template_version": environment.template_version,
        "inputs": ["dataset:imagenet@1"],
    }
    (entry,) = world.request(name="user", mounts=[{"ref": "model:resnet"}]).mounts
    volume = Volume.objects.get(pk=version.volume_id)
    assert (entry["claim"], entry["sub_path"], entry["mount_path"], entry["read_only"]) == (volume.claim, "runs/1", "/models/resnet", True)


def test_nobody_registers_from_an_environment_of_another(world: World) -> None:
    environment = world.running()
    services.artifact_create(actor=world.bob, kind="model", name="stolen")
    with pytest.raises(NotFound):
        add(world.bob, "stolen", "model", environment_id=environment.pk, path="x")


def test_a_volume_in_which_a_model_lies_is_not_purged(world: World) -> None:
    environment, version = model_of_home(world)
    with pytest.raises(Conflict, match="model:resnet@1 lies in its home volume"):
        services.environment_delete(actor=world.alice, environment_id=environment.pk, purge=True)
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    world.bring_to(environment, "deleting", "deleted")
    with pytest.raises(Conflict, match="model:resnet@1"):
        services.volume_purge(actor=world.alice, volume_id=version.volume_id)
    services.artifact_delete(actor=world.alice, kind="model", name="resnet")
    services.volume_purge(actor=world.alice, volume_id=version.volume_id)
    services.artifact_create(actor=world.alice, kind="model", name="late")
    with pytest.raises(ValidationError, match="being purged"):
        add(world.alice, "late", "model", environment_id=environment.pk, path="x")


def test_a_version_that_something_mounts_is_not_taken_off_the_list(world: World) -> None:
    dataset(world, "imagenet")
    environment = world.request(mounts=[{"ref": "dataset:imagenet@1"}])
    with pytest.raises(Conflict, match="nb of alice"):
        services.artifact_version_delete(actor=world.alice, kind="dataset", name="imagenet", number=1)
    with pytest.raises(Conflict, match="nb of alice"):
        services.artifact_delete(actor=world.alice, kind="dataset", name="imagenet")
    services.environment_delete(actor=world.alice, environment_id=environment.pk)
    world.bring_to(environment, "deleting", "deleted")
    services.artifact_delete(actor=world.alice, kind="dataset", name="imagenet")
    assert not ArtifactVersion.objects.exists()


def test_a_start_is_refused_when_the_owner_does_not_see_the_dataset_any_more(world: World) -> None:
    eve = User.objects.create(username="eve")
    services.membership_set(actor=None, team=world.vision, user=eve, role="engineer")
    dataset(world, "imagenet")
    environment = world.running(actor=eve, mounts=[{"ref": "dataset:imagenet"}])
    services.environment_stop(actor=eve, environment_id=environment.pk)
    world.bring_to(environment, "stopping", "stopped")
    services.artifact_update(actor=world.alice, kind="dataset", name="imagenet", visibility="private")
    with pytest.raises(Conflict, match="not shown to you"):
        services.environment_start(actor=eve, environment_id=environment.pk)
    services.artifact_update(actor=world.alice, kind="dataset", name="imagenet", visibility="team", description="1.2 million pictures")
    services.environment_start(actor=eve, environment_id=environment.pk)


def test_a_disabled_storage_takes_its_datasets_out_of_reach(world: World) -> None:
    grant(world, "nas", "read")
    dataset(world, "pictures", storage="nas")
    Storage.objects.filter(slug="nas").update(enabled=False)
    assert "may not use" in mount_error(world, world.alice, "dataset:pictures")
