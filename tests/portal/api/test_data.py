"""Datasets, models and storages over the API, and what environments mount; no secret and no server is in any answer."""

from __future__ import annotations

from typing import Any

from portal.domain.models import Environment
from tests.portal.domain.test_storages import grant, with_secrets
from tests.portal.world import World

WISH = {"name": "nb", "template": "notebook", "flavor": "cpu-small"}
SHA = "sha256:" + "0" * 64


def test_storages_say_what_each_team_may_do_and_nothing_of_the_server(alice: Any, world: World) -> None:
    grant(world, "nas", "read")
    response = alice("GET", "/storages", **{"Accept-Language": "zh-hans"})
    rows = {row["slug"]: row for row in response.json()["results"]}
    assert rows.keys() == {"scratch-disk", "scratch-memory", "team-shared", "nas"}
    assert (rows["nas"]["access"], rows["nas"]["mount_path"], rows["nas"]["kind"]) == ({"vision": "read"}, "/mnt/nas", "nfs")
    assert rows["team-shared"]["title"] == "团队共享卷"
    assert "nas.example.com" not in response.content.decode()


def test_a_dataset_from_its_name_to_a_mounted_version(alice: Any, caller: Any) -> None:
    made = alice("POST", "/datasets", {"name": "imagenet", "description": "pictures"})
    assert made.status_code == 201
    assert made["Location"].endswith("/api/v1/datasets/imagenet")
    assert (made.json()["visibility"], made.json()["latest"]) == ("team", None)
    body = {"path": "/imagenet/v1/", "storage": "team-shared", "checksum": SHA, "size_bytes": 7, "format": "webdataset"}
    version = alice("POST", "/datasets/imagenet/versions", body)
    assert version.status_code == 201
    assert {key: version.json()[key] for key in ("reference", "path", "storage", "volume", "checksum", "size_bytes", "lineage", "created_by")} == {
        "reference": "dataset:imagenet@1",
        "path": "imagenet/v1",
        "storage": "team-shared",
        "volume": None,
        "checksum": SHA,
        "size_bytes": 7,
        "lineage": None,
        "created_by": "alice",
    }
    assert [row["number"] for row in alice("GET", "/datasets/imagenet/versions").json()["results"]] == [1]
    assert alice("GET", "/datasets?q=pict").json()["results"][0]["latest"]["reference"] == "dataset:imagenet@1"
    assert alice("GET", "/datasets?q=nothing").json()["results"] == []
    wish = WISH | {"mounts": [{"ref": "dataset:imagenet"}, {"storage": "scratch-disk"}]}
    preview = alice("POST", "/environments?dry_run=true", wish)
    assert preview.status_code == 200, preview.content
    environment = alice("POST", "/environments", wish)
    assert environment.status_code == 201, environment.content
    assert environment.json()["mounts"] == [
        {"storage": "team-shared", "ref": "dataset:imagenet@1", "mount_path": "/datasets/imagenet", "read_only": True},
        {"storage": "scratch-disk", "ref": None, "mount_path": "/mnt/scratch", "read_only": False},
    ]
    assert alice("DELETE", "/datasets/imagenet/versions/1").status_code == 409
    assert alice("PATCH", "/datasets/imagenet", {"visibility": "private"}).json()["visibility"] == "private"
    assert caller("bob")("GET", "/datasets/imagenet").status_code == 404
    assert alice("PATCH", "/datasets/imagenet", {}).status_code == 422


def test_a_model_registered_from_an_environment_has_its_lineage(alice: Any, world: World) -> None:
    environment = world.running()
    alice("POST", "/models", {"name": "resnet", "visibility": "everyone"})
    version = alice("POST", "/models/resnet/versions", {"path": "out", "environment": str(environment.pk)})
    assert version.status_code == 201, version.content
    assert version.json()["lineage"] == {
        "environment": str(environment.pk),
        "name": "nb",
        "template": "notebook",
        "template_version": environment.template_version,
        "inputs": [],
    }
    refused = alice("DELETE", f"/environments/{environment.pk}?purge=true")
    assert refused.status_code == 409
    assert "model:resnet@1" in refused.json()["detail"]
    assert alice("DELETE", "/models/resnet").status_code == 204
    assert alice("DELETE", f"/environments/{environment.pk}?purge=true").status_code == 202


def test_wrong_mounts_name_their_fields(alice: Any) -> None:
    response = alice("POST", "/environments", WISH | {"mounts": [{"storage": "nas"}, {"ref": "dataset:none"}, 7]})
    assert response.status_code == 422
    assert response.json()["errors"].keys() == {"mounts.0.storage", "mounts.1.ref", "mounts.2"}
    assert alice("POST", "/environments", WISH | {"mounts": "nas"}).json()["errors"].keys() == {"mounts"}
    assert alice("POST", "/environments", WISH | {"mounts": None}).status_code == 201


def test_no_answer_holds_a_secret(alice: Any, caller: Any, world: World) -> None:
    with_secrets(world, grant(world, "s3"))
    made = alice("POST", "/environments", WISH | {"mounts": [{"storage": "s3"}]})
    assert made.json()["mounts"] == [{"storage": "s3", "ref": None, "mount_path": None, "read_only": False}]
    path = f"/environments/{Environment.objects.get().pk}"
    for who in ("alice", "admin"):
        for address in (path, f"{path}/events", "/environments", "/storages"):
            text = caller(who)("GET", address).content.decode()
            assert "top-secret" not in text
            assert "secretAccessKey" not in text


def test_the_openapi_document_describes_mounts(alice: Any) -> None:
    document = alice("GET", "/openapi.json").json()
    assert {"/api/v1/datasets", "/api/v1/models/{name}/versions/{number}", "/api/v1/storages"} <= document["paths"].keys()
    mounts = document["components"]["schemas"]["EnvironmentRequestRequest"]["properties"]["mounts"]
    assert mounts["items"]["$ref"].endswith("MountWishRequest")
