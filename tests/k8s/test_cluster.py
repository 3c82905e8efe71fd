"""The client against the embedded cluster, a real process."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k8s import cluster as api
from k8s import errors, manifests, names, tenancy, transport
from k8s.cluster import Cluster
from k8s.spec import TeamSpec
from tests.embedded import EmbeddedCluster
from tests.stack import free_ports, wait_until

from .factories import cluster_spec, notebook_spec

pytestmark = [pytest.mark.integration]
_numbers = itertools.count(1)


@pytest.fixture
def cluster(embedded: EmbeddedCluster) -> Iterator[Cluster]:
    cluster = Cluster(embedded.kubeconfig)
    yield cluster
    cluster.close()


@pytest.fixture
def team(cluster: Cluster) -> TeamSpec:
    """A team of its own for each test."""
    slug = f"t{next(_numbers)}"
    team = TeamSpec(slug=slug, install="abc123", namespace=names.namespace(slug), hub_cidrs=("127.0.0.1/32",))
    cluster.apply(tenancy.namespace(team))
    return team


def config(namespace: str, name: str, data: dict[str, str], **labels: str) -> dict[str, Any]:
    own = {names.MANAGED_BY: names.MANAGER, names.INSTALL: "abc123", **labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "labels": own}, "data": data}


def test_everything_that_is_made_for_a_team_and_a_cluster_is_accepted(cluster: Cluster, team: TeamSpec) -> None:
    spec = cluster_spec(namespace=team.namespace, team=team.slug)
    cluster.apply_all(tenancy.namespace_documents(team))
    parent = cluster.apply(manifests.parent(spec))
    documents = [*manifests.cluster_documents(spec, manifests.owner_reference(parent)), manifests.home_claim(notebook_spec(namespace=team.namespace))]
    made = cluster.apply_all(documents)
    assert [item["metadata"]["name"] for item in made] == [document["metadata"]["name"] for document in documents]
    listed = cluster.gather([(kind, team.namespace, f"{names.ENVIRONMENT}={spec.id}", "") for kind in (api.STATEFUL_SETS, api.SERVICES, api.CONFIG_MAPS)])
    assert [len(items) for items in listed] == [2, 2, 1]


def test_applying_again_changes_nothing_and_a_change_changes_just_that(cluster: Cluster, team: TeamSpec) -> None:
    first = cluster.apply(config(team.namespace, "one", {"a": "1"}))
    assert cluster.apply(config(team.namespace, "one", {"a": "1"}))["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    changed = cluster.apply(config(team.namespace, "one", {"b": "2"}))
    assert changed["data"] == {"b": "2"}
    assert changed["metadata"]["uid"] == first["metadata"]["uid"]


@pytest.mark.parametrize(
    "labels",
    [{}, {names.MANAGED_BY: names.MANAGER, names.INSTALL: "another"}, {names.MANAGED_BY: names.MANAGER, names.INSTALL: "abc123", names.ENVIRONMENT: "other"}],
)
def test_an_object_of_someone_else_is_left_alone(cluster: Cluster, team: TeamSpec, labels: dict[str, str]) -> None:
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "taken", "namespace": team.namespace, "labels": labels}, "data": {"keep": "me"}}
    cluster._json("POST", f"/api/v1/namespaces/{team.namespace}/configmaps", body=theirs)
    with pytest.raises(errors.Foreign, match="taken"):
        cluster.apply(config(team.namespace, "taken", {"a": "1"}))
    found = cluster.get(api.CONFIG_MAPS, "taken", team.namespace)
    assert found is not None
    assert found["data"] == {"keep": "me"}


def test_a_claim_that_is_there_is_kept_as_it_is(cluster: Cluster, team: TeamSpec) -> None:
    claim = manifests.home_claim(notebook_spec(namespace=team.namespace))
    first = cluster.apply(claim)
    claim["spec"]["resources"]["requests"]["storage"] = "1"
    assert cluster.apply(claim)["metadata"]["uid"] == first["metadata"]["uid"]


def test_deleting_the_parent_takes_its_children_along(cluster: Cluster, team: TeamSpec) -> None:
    spec = cluster_spec(namespace=team.namespace, team=team.slug)
    parent = cluster.apply(manifests.parent(spec))
    cluster.apply_all(manifests.cluster_documents(spec, manifests.owner_reference(parent)))
    assert cluster.delete(parent)
    label = f"{names.ENVIRONMENT}={spec.id}"
    wait_until(lambda: not any(cluster.gather([(kind, team.namespace, label, "") for kind in api.ENVIRONMENT_KINDS])), "the children to go")


def test_only_the_very_object_that_was_seen_is_deleted(cluster: Cluster, team: TeamSpec) -> None:
    old = cluster.apply(config(team.namespace, "one", {"a": "1"}))
    assert cluster.delete(old)
    wait_until(lambda: cluster.get(api.CONFIG_MAPS, "one", team.namespace) is None, "the old one to go")
    new = cluster.apply(config(team.namespace, "one", {"a": "2"}))
    assert not cluster.delete(old)
    assert cluster.get(api.CONFIG_MAPS, "one", team.namespace) == new
    assert not cluster.delete({**old, "metadata": {**old["metadata"], "name": "never-was"}})


def test_an_annotation_is_put_on_the_object_that_was_seen_only(cluster: Cluster, team: TeamSpec) -> None:
    made = cluster.apply(config(team.namespace, "one", {"a": "1"}))
    cluster.annotate(made, {"note": "here"})
    found = cluster.get(api.CONFIG_MAPS, "one", team.namespace)
    assert found is not None
    assert found["metadata"]["annotations"]["note"] == "here"
    cluster.annotate({**made, "metadata": {**made["metadata"], "uid": "another"}}, {"note": "there"})
    assert cluster.get(api.CONFIG_MAPS, "one", team.namespace) == found


def test_what_the_cluster_does_not_accept_is_said_with_the_field(cluster: Cluster, team: TeamSpec) -> None:
    with pytest.raises(errors.Rejected, match="invalid"):
        cluster.apply(config(team.namespace, "No_Name", {}))


def test_an_unknown_namespace_is_gone(cluster: Cluster) -> None:
    with pytest.raises(errors.Gone, match="nowhere"):
        cluster.apply(config("nowhere", "one", {}))


def test_lists_longer_than_a_page_are_complete(cluster: Cluster, team: TeamSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PAGE", 2)
    made = {item["metadata"]["name"] for item in cluster.apply_all(config(team.namespace, f"c{number}", {}, page="yes") for number in range(5))}
    assert {item["metadata"]["name"] for item in cluster.find(api.CONFIG_MAPS, team.namespace, labels="page=yes")} == made


def test_a_watch_tells_what_happens_after_the_list(cluster: Cluster, team: TeamSpec) -> None:
    cluster.apply(config(team.namespace, "before", {}, watched="yes"))
    items, version = cluster.find_at(api.CONFIG_MAPS, team.namespace, labels="watched=yes")
    assert [item["metadata"]["name"] for item in items] == ["before"]
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        for kind, item in cluster.watch(api.CONFIG_MAPS, team.namespace, labels="watched=yes", resource_version=version):
            if kind != "BOOKMARK":
                seen.append((kind, item["metadata"]["name"]))
            if kind == "DELETED":
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    made = cluster.apply(config(team.namespace, "after", {}, watched="yes"))
    cluster.apply(config(team.namespace, "after", {"a": "1"}, watched="yes"))
    cluster.apply(config(team.namespace, "unwatched", {}))
    cluster.delete(made)
    thread.join(30)
    assert seen == [("ADDED", "after"), ("MODIFIED", "after"), ("DELETED", "after")]


def test_a_watch_that_is_told_it_is_too_old_is_expired() -> None:
    told = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    with pytest.raises(errors.Expired, match="too old"):
        transport.watch_event(json.dumps({"type": "ERROR", "object": told}).encode())


def test_no_answer_and_no_kubeconfig_are_unreachable(tmp_path: Path, embedded: EmbeddedCluster) -> None:
    with pytest.raises(errors.Unreachable, match="kubeconfig"):
        Cluster(tmp_path / "none").find(api.PODS)
    (port,) = free_ports(1)
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(embedded.kubeconfig.read_text().replace(str(embedded.port), str(port)))
    with pytest.raises(errors.Unreachable, match="does not answer") as caught:
        Cluster(elsewhere).find(api.PODS)
    assert str(port) not in str(caught.value)


def test_a_token_that_was_renewed_is_read_again(embedded: EmbeddedCluster, tmp_path: Path) -> None:
    good = embedded.kubeconfig.read_text()
    path = tmp_path / "kubeconfig"
    path.write_text("\n".join("    token: stale" if line.strip().startswith("token:") else line for line in good.splitlines()))
    cluster = Cluster(path)
    with pytest.raises(errors.Denied):
        cluster.find(api.PODS)
    path.write_text(good)
    assert isinstance(cluster.find(api.PODS), list)


def test_connections_do_not_cross_a_fork(embedded: EmbeddedCluster) -> None:
    code = """
import json, os, sys
from pathlib import Path
from k8s import cluster as api
path = Path(sys.argv[1])
before = api.connect(path)
before.find(api.PODS)
if os.fork() == 0:
    after = api.connect(path)
    print(json.dumps([after is before, isinstance(after.find(api.PODS), list)]), flush=True)
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code, str(embedded.kubeconfig)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True]
