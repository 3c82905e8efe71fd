"""Storages on the embedded cluster: what one environment writes another reads, what is read-only stays so, and what a grant makes goes with it."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from k8s import cluster as api
from k8s import manifests, names
from k8s.cluster import Cluster
from portal.domain import services
from portal.domain.models import Environment, Storage, TeamClaim, User
from tests.embedded import EmbeddedCluster
from tests.stack import wait_until
from workers import storages, teams
from workers.specs import environment_spec
from workers.tasks import team_sync

from .conftest import World, row
from .test_converge import Site, site, small

__all__ = ["site"]
pytestmark = [pytest.mark.integration, pytest.mark.django_db(transaction=True)]
SPACE = "atelier-vision"
FOREVER = "import time; time.sleep(3600)"


@pytest.fixture
def cluster(embedded: EmbeddedCluster, settings: Any) -> Iterator[Cluster]:
    teams.forget()
    settings.KUBECONFIG_PATH = embedded.kubeconfig
    cluster = Cluster(embedded.kubeconfig)
    yield cluster
    cluster.close()


@pytest.fixture
def admin(site: Site) -> User:
    return User.objects.create(username="admin", is_staff=True)


def printed(site: Site, environment: Environment, wanted: str) -> str:
    """What its first worker printed, once `wanted` is in it."""
    pod = f"{names.object_name(environment.name, str(environment.pk))}-worker-0"

    found: list[str] = []

    def look() -> str:
        found.append(site.cluster.read_log(SPACE, pod, "worker", max_bytes=100_000)[0].decode())
        return found[-1] if wanted in found[-1] else ""

    try:
        return str(wait_until(look, f"{wanted} in the log of {pod}"))
    except AssertionError as error:
        raise AssertionError(f"{error}; there is {found[-1]!r}") from error


def run(site: Site, name: str, program: str, **wish: Any) -> Environment:
    """An environment whose every role runs a program and then stays."""
    environment = small(site.world.request(name, params={"workers": 1}, **wish), command=["python", "-uc", f"{program}\n{FOREVER}"])
    return site.until_state(environment, "running")


def delete(site: Site, environment: Environment, *, purge: bool = False) -> None:
    services.environment_delete(actor=environment.owner, environment_id=environment.pk, purge=purge)
    site.until_state(environment, "deleted")


WRITE = "import os, pathlib; p = pathlib.Path('/mnt/team/run-7'); p.mkdir(exist_ok=True); (p / os.environ['POD_NAME']).write_text('weights'); print('written')"
READ = "import pathlib; print('found', sorted(q.read_text() for q in pathlib.Path('{path}').iterdir()))"
TRY_TO_WRITE = """
import pathlib
try:
    pathlib.Path('{path}/x').write_text('x')
    print('was written')
except OSError as error:
    print('refused:', error.strerror)
"""


@pytest.mark.runs("storage:team-shared")
def test_what_one_writes_another_reads_and_a_version_of_it_cannot_be_written(site: Site) -> None:
    shared = [{"storage": "team-shared"}]
    writer = run(site, "writer", WRITE, mounts=shared)
    assert "written" in printed(site, writer, "written")
    reader = run(site, "reader", READ.format(path="/mnt/team/run-7"), mounts=[{"storage": "team-shared", "read_only": True}])
    assert "found ['weights', 'weights']" in printed(site, reader, "found")  # of the scheduler and of the worker: every role has it
    delete(site, writer)

    services.artifact_create(actor=site.world.alice, kind="dataset", name="runs", team="vision")
    services.artifact_version_add(actor=site.world.alice, kind="dataset", name="runs", storage="team-shared", path="run-7", environment_id=reader.pk)
    both = READ.format(path="/datasets/runs") + "\n" + TRY_TO_WRITE.format(path="/datasets/runs")
    user = run(site, "user", both, mounts=[{"ref": "dataset:runs@1"}])
    text = printed(site, user, "refused:")
    assert "found ['weights', 'weights']" in text
    assert "Read-only file system" in text
    claim = TeamClaim.objects.get()
    assert site.cluster.get(api.CLAIMS, claim.claim, SPACE)["spec"]["resources"]["requests"]["storage"] == str(claim.size_bytes)  # type: ignore[index]

    for environment in (reader, user):
        delete(site, environment)
    services.artifact_delete(actor=site.world.alice, kind="dataset", name="runs")
    assert site.cluster.get(api.CLAIMS, claim.claim, SPACE) is not None, "it outlives those that mount it"
    services.team_claim_purge(actor=None, claim_id=claim.pk)

    def purged() -> bool:
        team_sync.apply(args=["vision"], throw=True)
        return not TeamClaim.objects.exists()

    wait_until(purged, "the shared volume to be purged")
    assert site.cluster.get(api.CLAIMS, claim.claim, SPACE) is None


def test_a_model_of_a_home_volume_is_read_elsewhere(site: Site) -> None:
    """The home claim is made and filled as a notebook's pod would; then a cluster mounts a folder of it."""
    world = site.world
    notebook = row(services.environment_request(actor=world.alice, name="lab", template="notebook", flavor="cpu-small", team="vision").pk)
    fill = "import pathlib; p = pathlib.Path('/mnt/home/model'); p.exists() or p.mkdir(); (p / 'w').write_text('42'); print('written')"
    filler = small(world.request("filler", params={"workers": 1}), command=["python", "-uc", f"{fill}\n{FOREVER}"])
    Environment.objects.filter(pk=filler.pk).update(mounts=[_home_entry(notebook)])
    teams.team_ensure(site.cluster, world.vision)
    site.cluster.apply(manifests.home_claim(environment_spec(notebook)))
    site.until_state(filler, "running")
    printed(site, filler, "written")

    services.artifact_create(actor=world.alice, kind="model", name="resnet", team="vision")
    version = services.artifact_version_add(actor=world.alice, kind="model", name="resnet", environment_id=notebook.pk, path="model", format="onnx")
    assert version.lineage["template"] == "notebook"
    user = run(site, "user", READ.format(path="/models/resnet") + TRY_TO_WRITE.format(path="/models/resnet"), mounts=[{"ref": "model:resnet"}])
    text = printed(site, user, "refused:")
    assert "found ['42']" in text
    assert "Read-only file system" in text


def _home_entry(notebook: Environment) -> dict[str, Any]:
    assert notebook.volume is not None
    entry = {"storage": "", "ref": "", "mount_path": "/mnt/home", "read_only": False, "sub_path": "", "access": "write", "document": {}}
    return entry | {"claim": notebook.volume.claim}


@pytest.mark.runs("storage:scratch-disk", "storage:scratch-memory")
def test_scratch_is_empty_and_writable_on_disk_and_in_memory(site: Site) -> None:
    program = "import os, pathlib as p\nfor f in '/mnt/scratch', '/mnt/memory':\n  assert os.listdir(f) == []\n  p.Path(f, 'x').write_text('x')\nprint('both')"
    environment = run(site, "fast", program, mounts=[{"storage": "scratch-disk"}, {"storage": "scratch-memory"}])
    assert "both" in printed(site, environment, "both")


@pytest.mark.runs("storage:s3")
def test_a_secret_is_in_the_pods_environment_and_goes_with_the_grant(site: Site, admin: User) -> None:
    world = site.world
    storage = granted(world, admin, "s3")
    for key, value in (("accessKeyID", b"AK"), ("secretAccessKey", b"top-secret")):
        services.storage_secret_set(actor=admin, storage=storage, key=key, value=value)
    program = "import os; print('seen', os.environ['AWS_ENDPOINT_URL_S3'], len(os.environ['AWS_SECRET_ACCESS_KEY']), os.environ['AWS_SECRET_ACCESS_KEY'][-1])"
    environment = run(site, "object", program, mounts=[{"storage": "s3"}])
    assert "seen https://s3.example.com 10 t" in printed(site, environment, "seen")
    secret = site.cluster.get(api.SECRETS, "storage-s3", SPACE)
    assert secret is not None
    assert {key: b64decode(value) for key, value in secret["data"].items()} == {"accessKeyID": b"AK", "secretAccessKey": b"top-secret"}
    pods = site.cluster.find(api.PODS, SPACE, labels=f"{names.ENVIRONMENT}={environment.pk}")
    sets = site.cluster.find(api.STATEFUL_SETS, SPACE, labels=f"{names.ENVIRONMENT}={environment.pk}")
    assert pods
    assert sets
    assert "top-secret" not in json.dumps([pods, sets, row(environment.pk).mounts])
    assert site.cluster.get(api.SECRETS, "storage-s3", "atelier-speech") is None

    services.storage_secret_set(actor=admin, storage=storage, key="secretAccessKey", value=b"another")
    team_sync.apply(args=["vision"], throw=True)
    secret = site.cluster.get(api.SECRETS, "storage-s3", SPACE)
    assert secret is not None
    assert b64decode(secret["data"]["secretAccessKey"]) == b"another"
    services.storage_grant_remove(actor=admin, storage=storage, team=world.vision)
    team_sync.apply(args=["vision"], throw=True)
    assert site.cluster.get(api.SECRETS, "storage-s3", SPACE) is None
    site.look(environment)
    assert site.cluster.get(api.SECRETS, "storage-s3", SPACE) is None, "what still runs does not bring it back"


def granted(world: World, admin: User, slug: str, access: str = "write") -> Storage:
    Storage.objects.filter(slug=slug).update(enabled=True)
    storage = Storage.objects.get(slug=slug)
    services.storage_grant_set(actor=admin, storage=storage, team=world.vision, access=access)
    return storage


def ours(cluster: Cluster) -> dict[str, list[Any]]:
    label = f"{names.STORAGE}"
    kinds = {"volumes": (api.VOLUMES, ""), "claims": (api.CLAIMS, SPACE), "secrets": (api.SECRETS, SPACE), "maps": (api.CONFIG_MAPS, SPACE)}
    return {word: cluster.find(kind, space, labels=label) for word, (kind, space) in kinds.items()}


def test_static_volumes_come_bind_change_and_go_with_the_grant(site: Site, admin: User) -> None:
    world, cluster = site.world, site.cluster
    for claim in cluster.find(api.CLAIMS, SPACE):  # home volumes that earlier tests kept
        cluster.delete(claim)
    wait_until(lambda: not cluster.find(api.CLAIMS, SPACE), "what others left to go")
    services.quota_set(actor=None, team=world.vision, user=None, resource="storage", limit=0)  # a static volume is not the team's storage
    nas, hdfs = granted(world, admin, "nas", "read"), granted(world, admin, "hdfs")
    services.storage_secret_set(actor=admin, storage=hdfs, key="keytab", value=b"\x05\x02")
    team_sync.apply(args=["vision"], throw=True)
    found = ours(cluster)
    assert {word: len(items) for word, items in found.items()} == {"volumes": 1, "claims": 1, "secrets": 1, "maps": 1}
    assert set(found["maps"][0]["data"]) == {"core-site.xml", "hdfs-site.xml", "krb5.conf"}
    name = found["claims"][0]["metadata"]["name"]
    wait_until(lambda: cluster.get(api.CLAIMS, name, SPACE)["status"].get("phase") == "Bound", "the claim to be bound")  # type: ignore[index]
    volume = cluster.find(api.VOLUMES, labels=names.STORAGE)[0]
    assert volume["spec"]["nfs"] == {"server": "nas.example.com", "path": "/export/atelier", "readOnly": True}
    assert volume["spec"]["claimRef"]["name"] == name

    services.storage_grant_set(actor=admin, storage=nas, team=world.vision, access="write")

    def changed() -> bool:
        team_sync.apply(args=["vision"], throw=True)
        now = ours(cluster)
        return [item["spec"]["nfs"].get("readOnly") for item in now["volumes"]] == [None] and [item["metadata"]["name"] for item in now["claims"]] != [name]

    wait_until(changed, "the volume to write")
    for storage in (nas, hdfs):
        services.storage_grant_remove(actor=admin, storage=storage, team=world.vision)

    def gone() -> bool:
        team_sync.apply(args=["vision"], throw=True)
        return not any(ours(cluster).values())

    wait_until(gone, "everything of the storages to go")


def test_what_is_not_of_this_installation_is_left_alone(site: Site, admin: User) -> None:
    team_sync.apply(args=["vision"], throw=True)
    labels = {names.MANAGED_BY: names.MANAGER, names.INSTALL: "another", names.TEAM: "vision", names.STORAGE: "nas"}
    site.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage-nas", "namespace": SPACE, "labels": labels}, "type": "Opaque"})
    storages.sync(site.cluster, site.world.vision)
    found = site.cluster.get(api.SECRETS, "storage-nas", SPACE)
    assert found is not None
    site.cluster.delete(found)
