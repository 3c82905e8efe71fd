"""Storage in documents: compared whole, validated against Kubernetes' schemas, and within restricted Pod Security."""

from __future__ import annotations

import logging
from dataclasses import replace

import kubernetes_validate
import pytest

from k8s import manifests, volumes
from k8s.local.admission.pod_security import violations
from k8s.spec import Home, Mount
from k8s.volumes import SharedClaim, TeamStorage

from .factories import OWNER, cluster_spec, notebook_spec

NFS = TeamStorage(
    slug="nas",
    install="abc123",
    team="vision",
    namespace="atelier-vision",
    read_only=False,
    capacity_bytes=10 * 2**40,
    source={"nfs": {"server": "nas.example.com", "path": "/export"}},
    mount_options=("nfsvers=4.1",),
)
CEPH = TeamStorage(
    slug="cephfs",
    install="abc123",
    team="vision",
    namespace="atelier-vision",
    read_only=True,
    capacity_bytes=2**40,
    source={"csi": {"driver": "cephfs.csi.ceph.com", "volumeAttributes": {"clusterID": "c", "fsName": "myfs", "staticVolume": "true", "rootPath": "/v"}}},
    secret_refs=("nodeStage",),
    secret={"userID": b"atelier", "userKey": b"AQB-top-secret"},
)


def labels(slug: str) -> dict[str, str]:
    return {"app.kubernetes.io/managed-by": "atelier", "atelier.dev/install": "abc123", "atelier.dev/team": "vision", "atelier.dev/storage": slug}


def valid(document: dict) -> dict:
    kubernetes_validate.validate(document, "1.36", strict=True)
    return document


def test_an_nfs_storage_is_a_static_volume_and_its_claim() -> None:
    volume, claim = map(valid, volumes.storage_documents(NFS))
    digest = claim["metadata"]["name"].removeprefix("storage-nas-")
    assert len(digest) == 8
    assert volume == {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"atelier-abc123-vision-nas-{digest}", "labels": labels("nas")},
        "spec": {
            "capacity": {"storage": str(10 * 2**40)},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "volumeMode": "Filesystem",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "atelier-vision", "name": f"storage-nas-{digest}"},
            "nfs": {"server": "nas.example.com", "path": "/export"},
            "mountOptions": ["nfsvers=4.1"],
        },
    }
    assert claim == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"storage-nas-{digest}", "namespace": "atelier-vision", "labels": labels("nas")},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": f"atelier-abc123-vision-nas-{digest}",
            "resources": {"requests": {"storage": "1048576"}},
        },
    }


def test_a_csi_storage_to_read_has_its_secret_beside_it_and_mounts_nothing_writable() -> None:
    secret, volume, claim = map(valid, volumes.storage_documents(CEPH))
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "storage-cephfs", "namespace": "atelier-vision", "labels": labels("cephfs")},
        "type": "Opaque",
        "data": {"userID": "YXRlbGllcg==", "userKey": "QVFCLXRvcC1zZWNyZXQ="},
    }
    name = volume["metadata"]["name"]
    assert volume["spec"]["csi"] == {
        "driver": "cephfs.csi.ceph.com",
        "volumeHandle": name,
        "volumeAttributes": {"clusterID": "c", "fsName": "myfs", "staticVolume": "true", "rootPath": "/v"},
        "nodeStageSecretRef": {"name": "storage-cephfs", "namespace": "atelier-vision"},
        "readOnly": True,
    }
    assert volume["spec"]["accessModes"] == claim["spec"]["accessModes"] == ["ReadOnlyMany"]
    assert claim["spec"]["volumeName"] == name


def test_another_team_right_or_server_is_another_volume() -> None:
    others = [
        replace(NFS, read_only=True),
        replace(NFS, team="speech", namespace="atelier-speech"),
        replace(NFS, install="def456"),
        replace(NFS, source={"nfs": {"server": "nas.example.com", "path": "/other"}}),
        replace(NFS, mount_options=()),
    ]
    assert len({volumes.volume_name(storage) for storage in (NFS, *others)}) == 6
    assert volumes.volume_name(replace(NFS, secret={"k": b"v"})) == volumes.volume_name(NFS)  # a new secret needs no new volume


def test_a_handle_of_its_own_is_kept_and_may_hold_the_unique_name() -> None:
    literal = volumes.persistent_volume(replace(CEPH, volume_handle="fs-1"))
    assert literal["spec"]["csi"]["volumeHandle"] == "fs-1"
    named = volumes.persistent_volume(replace(CEPH, volume_handle="fs-1::${name}"))
    assert named["spec"]["csi"]["volumeHandle"] == f"fs-1::{named['metadata']['name']}"


def test_a_shared_claim_is_made_whole() -> None:
    claim = SharedClaim(slug="team-shared", install="abc123", team="vision", namespace="atelier-vision", claim="storage-team-shared-1", size_bytes=2**30)
    assert valid(volumes.shared_claim(replace(claim, storage_class="fast"))) == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "storage-team-shared-1", "namespace": "atelier-vision", "labels": labels("team-shared")},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": str(2**30)}}, "storageClassName": "fast"},
    }
    assert "storageClassName" not in volumes.shared_claim(claim)["spec"]


MOUNTS = (
    Mount(mount_path="/mnt/team", claim="storage-team-1"),
    Mount(mount_path="/datasets/imagenet", claim="storage-team-1", sub_path="imagenet/v3", read_only=True),
    Mount(mount_path="/models/resnet", claim="home-other-1", sub_path="out", read_only=True),
    Mount(mount_path="/mnt/memory", scratch_bytes=2**30, in_memory=True),
    Mount(mount_path="/etc/hadoop/conf", config_map="storage-hdfs", read_only=True),
    Mount(mount_path="/etc/security/keytabs", secret="storage-hdfs", secret_files={"keytab": "keytab.keytab"}, read_only=True),
    Mount(env={"S3_BUCKET": "b", "MODE": "no"}, secret_env={"AWS_SECRET_ACCESS_KEY": ("storage-s3", "secretAccessKey")}),
)


def test_every_role_of_a_cluster_mounts_what_the_environment_mounts() -> None:
    spec = cluster_spec(mounts=MOUNTS)
    for role in spec.roles:
        pod = valid(manifests.role_set(spec, role, OWNER))["spec"]["template"]["spec"]
        assert [volume for volume in pod["volumes"] if volume["name"] != "scratch"] == [
            {"name": "data-0", "persistentVolumeClaim": {"claimName": "storage-team-1"}},
            {"name": "data-1", "persistentVolumeClaim": {"claimName": "home-other-1", "readOnly": True}},
            {"name": "data-2", "emptyDir": {"sizeLimit": str(2**30), "medium": "Memory"}},
            {"name": "data-3", "configMap": {"name": "storage-hdfs"}},
            {"name": "data-4", "secret": {"secretName": "storage-hdfs", "defaultMode": 0o440, "items": [{"key": "keytab", "path": "keytab.keytab"}]}},
        ]
        (container,) = pod["containers"]
        assert [mount for mount in container["volumeMounts"] if mount["name"] != "scratch"] == [
            {"name": "data-0", "mountPath": "/mnt/team"},
            {"name": "data-0", "mountPath": "/datasets/imagenet", "readOnly": True, "subPath": "imagenet/v3"},
            {"name": "data-1", "mountPath": "/models/resnet", "readOnly": True, "subPath": "out"},
            {"name": "data-2", "mountPath": "/mnt/memory"},
            {"name": "data-3", "mountPath": "/etc/hadoop/conf", "readOnly": True},
            {"name": "data-4", "mountPath": "/etc/security/keytabs", "readOnly": True},
        ]
        assert {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "storage-s3", "key": "secretAccessKey"}}} in container["env"]
        assert violations("restricted", pod) == []


def test_a_notebook_that_mounts_a_model_of_its_own_home_has_one_volume_of_that_claim() -> None:
    spec = notebook_spec(
        home=Home(claim="home-lab-1", size_bytes=2**30), mounts=(Mount(mount_path="/models/m", claim="home-lab-1", sub_path="m", read_only=True),)
    )
    pod = valid(manifests.notebook_pod(spec, OWNER))["spec"]
    assert [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume] == [
        {"name": "home", "persistentVolumeClaim": {"claimName": "home-lab-1"}}
    ]
    mounts = pod["containers"][0]["volumeMounts"]
    assert {"name": "home", "mountPath": "/models/m", "readOnly": True, "subPath": "m"} in mounts
    assert {"name": "home", "mountPath": "/home/jovyan"} in mounts


def test_what_a_role_sets_itself_wins_over_a_storage() -> None:
    spec = notebook_spec(mounts=MOUNTS[-1:])
    (container,) = manifests.notebook_pod(spec, OWNER)["spec"]["containers"]
    assert [variable for variable in container["env"] if variable["name"] == "MODE"] == [{"name": "MODE", "value": "lab"}]
    assert {"name": "S3_BUCKET", "value": "b"} in container["env"]


def test_secrets_are_not_in_what_a_log_would_print(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("storage: %s %r", CEPH, CEPH)
    assert "cephfs" in caplog.text
    assert "top-secret" not in caplog.text
