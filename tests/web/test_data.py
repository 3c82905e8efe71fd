"""The pages of data: what is shown to whom, registering, mounting at launch, serving; outsiders meet 404."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from django.test import Client
from django.urls import reverse

from portal.catalogue import storages
from portal.catalogue.loader import BUILTIN
from portal.domain import services
from portal.domain.models import Artifact, ArtifactVersion, Environment, Storage, Template, User

from .world import World, launch, run_notebook


@pytest.fixture
def data(world: World) -> World:
    for file in sorted((BUILTIN / "storages").glob("*.yaml")):
        storages.store(yaml.safe_load(file.read_text()))
    services.quota_set(actor=None, team=world.vision, user=None, resource="storage", limit=None)
    return world


@pytest.fixture
def model(data: World) -> ArtifactVersion:
    services.artifact_create(actor=data.alice, kind="model", name="resnet", description="<b>bold</b>")
    return services.artifact_version_add(actor=data.alice, kind="model", name="resnet", storage="team-shared", path="resnet/7", format="onnx")


POSTS = [
    ("artifact", ["model", "resnet"], {"storage": "team-shared", "path": "x"}),
    ("artifact_change", ["model", "resnet"], {"visibility": "everyone"}),
    ("artifact_delete", ["model", "resnet"], {}),
    ("artifact_version_delete", ["model", "resnet", 1], {}),
]


@pytest.mark.parametrize(("name", "args", "body"), POSTS, ids=[name for name, _, _ in POSTS])
def test_an_outsider_meets_404_and_changes_nothing(
    name: str, args: list[Any], body: dict[str, str], data: World, model: ArtifactVersion, client_of: Callable[[User], Client]
) -> None:
    address = reverse(name, args=args)
    for stranger in (data.bob, data.charlie):
        assert client_of(stranger).get(reverse("artifact", args=["model", "resnet"])).status_code == 404
        assert client_of(stranger).post(address, body).status_code == 404
    assert Client().post(address, body).status_code == 302
    assert (Artifact.objects.get().visibility, ArtifactVersion.objects.count()) == ("team", 1)
    if name != "artifact":
        assert client_of(data.alice).get(address).status_code == 405
    closed = Client(enforce_csrf_checks=True)
    closed.force_login(data.alice)
    assert closed.post(address, body).status_code == 403


def test_one_who_may_only_look_is_offered_no_change(data: World, model: ArtifactVersion, client_of: Callable[[User], Client]) -> None:
    services.artifact_update(actor=data.alice, kind="model", name="resnet", visibility="everyone")
    page = client_of(data.bob).get(reverse("artifact", args=["model", "resnet"])).content.decode()
    assert "model:resnet@1" in page
    assert "version-form" not in page
    assert client_of(data.bob).post(reverse("artifact_delete", args=["model", "resnet"])).status_code == 403


def test_the_data_page_shows_what_one_may_use_and_nobody_elses(data: World, model: ArtifactVersion, client_of: Callable[[User], Client]) -> None:
    services.artifact_create(actor=data.bob, kind="dataset", name="speech-only", team="speech")
    page = client_of(data.alice).get("/data/").content.decode()
    assert "resnet" in page
    assert "speech-only" not in page
    assert "team-shared" in page
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    assert "nas.example.com" not in page
    nobody = client_of(data.charlie).get("/data/").content.decode()
    assert "resnet" not in nobody
    assert "team-shared" not in nobody
    assert "resnet" not in client_of(data.alice).get("/data/?q=nothing").content.decode()
    assert "你可使用的存储" in client_of(data.alice).get("/data/", headers={"Accept-Language": "zh-hans"}).content.decode()


def test_registering_from_a_name_to_a_version(data: World, client_of: Callable[[User], Client]) -> None:
    alice = client_of(data.alice)
    refused = alice.post("/data/dataset/new", {"name": "Not A Name", "team": "vision", "visibility": "team"})
    assert refused.status_code == 422
    assert "imagenet-1k" in refused.content.decode()
    made = alice.post("/data/dataset/new", {"name": "imagenet", "team": "vision", "visibility": "private", "description": "pictures"})
    assert made["Location"] == "/data/dataset/imagenet/"
    wrong = alice.post("/data/dataset/imagenet/", {"storage": "team-shared", "path": "../x"})
    assert wrong.status_code == 422
    assert "error_path" in wrong.content.decode()
    assert alice.post("/data/dataset/imagenet/", {"storage": "team-shared", "path": "imagenet/v1"}).status_code == 302
    assert "dataset:imagenet@1" in alice.get("/data/dataset/imagenet/").content.decode()
    assert alice.get("/data/tape/new").status_code == 404
    assert client_of(data.charlie).post("/data/dataset/new", {"name": "x", "team": "vision", "visibility": "team"}).status_code == 422


def test_the_launch_form_mounts_what_was_chosen(data: World, model: ArtifactVersion, client_of: Callable[[User], Client]) -> None:
    alice = client_of(data.alice)
    page = alice.get("/launch/notebook/").content.decode()
    assert 'name="storage_team-shared"' in page
    assert "model:resnet@1" in page
    assert "storage_nas" not in page
    typed = {"name": "nb", "team": "vision", "flavor": "small", "expires_in": "3600", "storage_team-shared": "read", "refs": ["model:resnet@1"]}
    assert "refused" not in alice.post("/launch/notebook/preview", typed).content.decode().lower()
    response = alice.post("/launch/notebook/", typed)
    assert response.status_code == 302, response.content.decode()
    environment = Environment.objects.get()
    assert [(entry["storage"], entry["ref"], entry["read_only"]) for entry in environment.mounts] == [
        ("team-shared", "", True),
        ("team-shared", "model:resnet@1", True),
    ]
    shown = alice.get(reverse("environment", args=[environment.pk])).content.decode()
    assert "/models/resnet" in shown
    assert 'id="register-model"' in shown
    assert client_of(data.charlie).post("/launch/notebook/", typed).status_code == 422


def test_a_refused_mount_is_said_at_its_field(data: World, client_of: Callable[[User], Client]) -> None:
    services.quota_set(actor=None, team=data.vision, user=None, resource="storage", limit=1)
    Storage.objects.filter(slug="scratch-memory").update(spec={**Storage.objects.get(slug="scratch-memory").spec, "mount_path": "/mnt/scratch"})
    typed = {"name": "c", "team": "vision", "flavor": "small", "expires_in": "3600", "storage_scratch-disk": "write", "storage_scratch-memory": "write"}
    page = client_of(data.alice).post("/launch/dask/", typed)
    assert page.status_code == 422
    assert "error_storage_scratch-memory" in page.content.decode()


def test_a_model_is_registered_from_an_environment_with_its_lineage(data: World, client_of: Callable[[User], Client]) -> None:
    environment = launch(data.alice, "train")
    run_notebook(environment)
    address = reverse("environment_register", args=[environment.pk])
    typed = {"kind": "model", "name": "resnet", "visibility": "team", "storage": "", "path": "out/model", "format": "onnx"}
    for stranger in (data.bob, data.charlie):
        assert client_of(stranger).get(address).status_code == 404
        assert client_of(stranger).post(address, typed).status_code == 404
    assert Client().get(address).status_code == 302
    assert not Artifact.objects.exists()
    alice = client_of(data.alice)
    assert alice.get(address).status_code == 200
    assert alice.post(address, typed | {"path": ".."}).status_code == 422
    assert not Artifact.objects.exists(), "a name without a version is not left behind"
    assert alice.post(address, typed)["Location"] == "/data/model/resnet/"
    page = alice.get("/data/model/resnet/").content.decode()
    assert "Made by train from template notebook" in page
    assert alice.post(address, typed)["Location"] == "/data/model/resnet/"
    assert Artifact.objects.get().last_number == 2


def test_serve_leads_to_the_launch_form_with_the_model_chosen(data: World, model: ArtifactVersion, client_of: Callable[[User], Client]) -> None:
    spec = {
        "slug": "serving",
        "version": 1,
        "kind": "cluster",
        "title": {"en": "A server of models"},
        "params": {"type": "object", "additionalProperties": False, "required": ["model"], "properties": {"model": {"type": "string"}}},
        "serves": {"formats": ["onnx"]},
        "roles": [{"name": "server", "image": "x"}],
    }
    Template.objects.create(slug="serving", kind="cluster", title=spec["title"], spec=spec)
    alice = client_of(data.alice)
    page = unescape(alice.get("/data/model/resnet/").content.decode())
    link = next(part.split('"')[0] for part in page.split('href="') if part.startswith("/launch/serving/"))
    assert "/launch/onnx-serving/?" in page  # the built-in one takes ONNX too
    assert parse_qs(urlsplit(link).query) == {"ref": ["model:resnet@1"], "param_model": ["/models/resnet/model.onnx"]}
    form = alice.get(link).content.decode()
    assert '<option value="model:resnet@1" selected>' in form
    assert 'value="/models/resnet/model.onnx"' in form
    services.artifact_version_add(actor=data.alice, kind="model", name="resnet", storage="team-shared", path="x", format="safetensors")
    assert "/launch/serving/" not in alice.get("/data/model/resnet/").content.decode().split('id="version-1"')[0]


# --- admin ---------------------------------------------------------------------


def test_the_admin_writes_secrets_and_never_shows_them(data: World, client_of: Callable[[User], Client]) -> None:
    admin, row = client_of(data.admin), Storage.objects.get(slug="cephfs")
    address = reverse("admin:domain_storage_change", args=[row.pk])
    page = admin.get(address).content.decode()
    assert "Not set." in page
    typed = {"enabled": "on", "spec": json.dumps(row.spec), "secret_userKey": "top-secret"}
    assert admin.post(address, typed).status_code == 302
    assert services.storage_secrets(row) == {"userKey": b"top-secret"}
    page = admin.get(address).content.decode()
    assert "top-secret" not in page
    assert "by admin" in page
    assert "top-secret" not in admin.get(reverse("admin:domain_storage_history", args=[row.pk])).content.decode()
    assert admin.post(address, {"enabled": "on", "spec": typed["spec"]}).status_code == 302  # left empty: kept
    assert services.storage_secrets(row) == {"userKey": b"top-secret"}
    assert admin.post(address, {"enabled": "on", "spec": typed["spec"], "clear_userKey": "on"}).status_code == 302
    assert services.storage_secrets(row) == {}
    row.refresh_from_db()
    assert (row.enabled, row.edited) == (True, False)


def test_the_admin_changes_a_storage_by_the_rules_of_its_file(data: World, client_of: Callable[[User], Client]) -> None:
    admin, row = client_of(data.admin), Storage.objects.get(slug="nas")
    address = reverse("admin:domain_storage_change", args=[row.pk])
    wrong = admin.post(address, {"spec": json.dumps({**row.spec, "capacity": "much"})})
    assert wrong.status_code == 200
    assert "capacity:" in wrong.content.decode()
    good = {**row.spec, "nfs": {"server": "real.example.com", "path": "/x"}}
    assert admin.post(address, {"enabled": "on", "spec": json.dumps(good)}).status_code == 302
    row.refresh_from_db()
    assert (row.spec["nfs"]["server"], row.edited, row.enabled) == ("real.example.com", True, True)
    grant = reverse("admin:domain_storagegrant_add")
    assert admin.post(grant, {"storage": row.pk, "team": data.vision.pk, "access": "read"}).status_code == 302
    assert [(g.team.slug, g.access, g.granted_by) for g in row.grants.all()] == [("vision", "read", data.admin)]


@pytest.mark.parametrize("name", ["storage_changelist", "storagegrant_changelist", "teamclaim_changelist"])
def test_the_admin_lets_nobody_else_in(name: str, data: World, client_of: Callable[[User], Client]) -> None:
    for person in (data.alice, data.lena, data.charlie):
        assert client_of(person).get(reverse(f"admin:domain_{name}")).status_code == 302
    assert client_of(data.admin).get(reverse(f"admin:domain_{name}")).status_code == 200
