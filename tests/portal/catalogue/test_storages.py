"""Storage entries: every built-in one says where its names were read, needs no code, and a wrong one is told with its field."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from portal.catalogue.loader import BUILTIN, CatalogueError, load
from portal.catalogue.validator import faults_of
from portal.domain.models import Storage

FILES = sorted((BUILTIN / "storages").glob("*.yaml"))
BY_SLUG = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_builtin_storage_is_called_as_its_file_and_names_its_source(file: Path) -> None:
    document = BY_SLUG[file.stem]
    assert document["slug"] == file.stem
    assert document["source"]
    assert "://" not in document["source"]  # a repository and a file, no host
    assert set(document["title"]) == {"en", "zh-hans"}
    assert document.get("enabled", True) is ("everyone" in document)  # what needs servers of one's own begins disabled, and granted to nobody


def wrong(slug: str, **changes: Any) -> list[str]:
    document = copy.deepcopy(BY_SLUG[slug])
    for path, value in changes.items():
        *holders, last = path.split("__")
        holder = document
        for key in holders:
            holder = holder[key]
        if value is None:
            del holder[last]
        else:
            holder[last] = value
    return [f"{fault.field}: {fault.message}" for fault in faults_of("storage", document)]


@pytest.mark.parametrize(
    ("slug", "changes", "field"),
    [
        ("nas", {"kind": "tape"}, "kind"),
        ("nas", {"nfs__server": None}, "nfs"),
        ("nas", {"nfs__path": "export"}, "nfs.path"),
        ("nas", {"nfs": None}, "nfs"),
        ("nas", {"csi": {"driver": "x.example.com"}}, "csi"),
        ("nas", {"capacity": "much"}, "capacity"),
        ("nas", {"capacity": None}, "capacity"),
        ("nas", {"mount_path": None}, "mount_path"),
        ("nas", {"mount_path": "/"}, "mount_path"),
        ("nas", {"password": "x"}, "(document)"),
        ("team-shared", {"claim__size": "0"}, "claim.size"),
        ("team-shared", {"everyone": "read"}, "everyone"),
        ("cephfs", {"csi__driver": "not a driver"}, "csi.driver"),
        ("cephfs", {"csi__secret_refs": ["nodeUnpublish"]}, "csi.secret_refs[0]"),
        ("cephfs", {"csi__secret_refs": None}, "secrets.userID"),
        ("cephfs", {"secrets": None}, "csi.secret_refs"),
        ("s3", {"object__env__AWS_ACCESS_KEY_ID": {"secret": "nope"}}, "object.env.AWS_ACCESS_KEY_ID.secret"),
        ("s3", {"object__env__X": "${secret}"}, "object.env.X"),
        ("s3", {"object__env__not-a-name": "x"}, "object.env"),
        ("s3", {"mount_path": "/mnt/s3"}, "mount_path"),
        ("hdfs", {"hdfs__keytab": "other"}, "hdfs.keytab"),
        ("hdfs", {"hdfs__config": {}}, "hdfs.config"),
    ],
)
def test_a_wrong_storage_is_told_with_its_field(slug: str, changes: dict[str, Any], field: str) -> None:
    found = wrong(slug, **changes)
    assert any(line.startswith(f"{field}: ") for line in found), found


def test_a_wrong_file_is_told_with_its_line_and_loads_nothing(db: None, tmp_path: Path) -> None:
    (tmp_path / "storages").mkdir()
    file = tmp_path / "storages" / "x.yaml"
    file.write_text("slug: x\nkind: nfs\ntitle: {en: X}\nmount_path: /mnt/x\ncapacity: lots\nnfs: {server: s, path: /p}\n")
    with pytest.raises(CatalogueError) as caught:
        load([BUILTIN, tmp_path])
    assert caught.value.faults == [f"{file}:5: capacity: 'lots' is not a quantity of bytes such as 512Mi or 10Gi"]
    assert not Storage.objects.exists()


def test_loading_again_leaves_what_an_admin_changed_alone(db: None) -> None:
    load()
    nas, ceph = Storage.objects.get(slug="nas"), Storage.objects.get(slug="cephfs")
    assert (nas.enabled, nas.edited) == (False, False)
    for row, edited in ((nas, True), (ceph, False)):
        row.spec = row.spec | {"capacity": "1Ti"}
        row.enabled, row.edited = True, edited
        row.save()
    load()
    nas.refresh_from_db()
    ceph.refresh_from_db()
    assert (nas.enabled, nas.spec["capacity"]) == (True, "1Ti")
    assert (ceph.enabled, ceph.spec["capacity"]) == (True, "100Ti")
