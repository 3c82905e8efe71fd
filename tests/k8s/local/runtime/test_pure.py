"""The parts that need no process: scheduling, plans, expansion, log files, volumes' files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8s.local.controllers.base import template_hash
from k8s.local.controllers.job import retry_after, wanted_active
from k8s.local.controllers.replicas import bounds
from k8s.local.controllers.statefulset import Member, make_plan
from k8s.local.kubelet.container import full_name
from k8s.local.kubelet.env import expand
from k8s.local.kubelet.logs import Formatter, LogOptions, Tail
from k8s.local.kubelet.plain import _replace_paths
from k8s.local.kubelet.shim.pump import LINE, LogFile, Stream
from k8s.local.network import write_in_place
from k8s.local.runtimes import Images
from k8s.local.scheduler import NodeState, choose, requests, tolerates, unfit
from k8s.local.spdy import DICTIONARY
from k8s.local.volumes import write_atomically


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("$(A)b", "1b"), ("$$(A)", "$(A)"), ("$(NONE)", "$(NONE)"), ("$(A", "$(A"), ("100$", "100$"), ("$A $(A)$(A)", "$A 11"), ("$$$(A)", "$1")],
)
def test_variables_expand_as_in_kubernetes(text: str, wanted: str) -> None:
    assert expand(text, {"A": "1"}) == wanted


# --- scheduling ---


def node(name: str, *, labels: dict[str, str] | None = None, taints: list[dict[str, str]] | None = None, **capacity: str) -> NodeState:
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "10", **{key.replace("__", "/"): value for key, value in capacity.items()}}
    return NodeState(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "spec": {"taints": taints or []},
            "status": {"allocatable": allocatable},
        }
    )


def want(limits: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c", "resources": {"limits": limits or {}}}], **spec}}


def required(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


@pytest.mark.parametrize(
    ("pod", "reasons"),
    [
        (want({"cpu": "4"}), []),
        (want({"cpu": "5", "memory": "9Gi"}), ["Insufficient cpu", "Insufficient memory"]),
        (want({"example.com/chip": "1"}), ["Insufficient example.com/chip"]),
        (want(nodeSelector={"disk": "ssd"}), []),
        (want(nodeSelector={"disk": "hdd"}), ["node(s) didn't match Pod's node affinity/selector"]),
        (want(affinity=required({"key": "disk", "operator": "In", "values": ["ssd", "x"]})), []),
        (want(affinity=required({"key": "disk", "operator": "NotIn", "values": ["ssd"]})), ["node(s) didn't match Pod's node affinity/selector"]),
        (want(affinity=required({"key": "none", "operator": "DoesNotExist"}, {"key": "size", "operator": "Gt", "values": ["4"]})), []),
        (want(affinity=required({"key": "size", "operator": "Lt", "values": ["5"]})), ["node(s) didn't match Pod's node affinity/selector"]),
    ],
)
def test_a_node_says_why_it_does_not_fit(pod: dict[str, Any], reasons: list[str]) -> None:
    state = node("a", labels={"disk": "ssd", "size": "5"})
    assert unfit(pod, state, [state]) == reasons


def test_taints_need_tolerations() -> None:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    state = node("a", taints=[taint])
    assert unfit(want(), state, [state]) == ["node(s) had untolerated taint {gpu: yes}"]
    assert not unfit(want(tolerations=[{"key": "gpu", "operator": "Exists"}]), state, [state])
    assert tolerates([{"key": "gpu", "value": "yes"}], taint)
    assert not tolerates([{"key": "gpu", "value": "no"}], taint)
    assert not tolerates([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}], taint)
    assert tolerates([{"operator": "Exists"}], taint)


def test_what_fits_nowhere_is_explained_as_the_real_scheduler_does() -> None:
    states = [node("a"), node("b", labels={"chip": "yes"}, example__chip="0"), node("c", taints=[{"key": "t", "effect": "NoExecute"}])]
    found, why = choose(want({"example/chip": "1"}, nodeSelector={"chip": "yes"}), states)
    assert found is None
    assert why == (
        "0/3 nodes are available: 1 Insufficient example/chip, 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {t: }. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, "
        "2 Preemption is not helpful for scheduling."
    )


def test_a_node_that_had_rather_not_comes_last_and_used_nodes_before_full_ones() -> None:
    reluctant = node("a", taints=[{"key": "simulated", "effect": "PreferNoSchedule"}], cpu="64")
    busy, idle = node("b"), node("c")
    busy.add(want({"cpu": "3"}))
    assert choose(want({"cpu": "1"}), [reluctant, busy, idle])[0] is idle
    idle.add(want({"cpu": "4"}))
    assert choose(want({"cpu": "1"}), [reluctant, busy, idle])[0] is busy
    busy.add(want({"cpu": "1"}))
    assert choose(want({"cpu": "1"}), [reluctant, busy, idle])[0] is reluctant


def test_pods_that_avoid_each_other_do_not_meet() -> None:
    first, second = node("a"), node("b")
    term = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
    pod = want(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    pod["metadata"]["labels"] = {"app": "x"}
    first.add(pod)
    assert choose(pod, [first, second])[0] is second
    second.add(pod)
    assert "2 node(s) didn't match pod anti-affinity rules" in choose(pod, [first, second])[1]


def test_init_containers_count_by_their_peak_and_sidecars_with_the_rest() -> None:
    spec = {
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
        "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
            {"name": "i", "resources": {"requests": {"cpu": "2"}}},
        ],
    }
    assert requests(spec)["cpu"] * 10 == 25


# --- controllers ---


def members(*ordinals: int, revision: str = "r", available: bool = True) -> list[Member]:
    return [Member(number, f"s-{number}", revision, available) for number in ordinals]


PLAN = {"first": 0, "parallel": False, "revision": "r", "strategy": "RollingUpdate", "partition": 0}


@pytest.mark.parametrize(
    ("have", "more", "create", "delete"),
    [
        ([], {"replicas": 3}, [0], []),
        ([], {"replicas": 3, "parallel": True}, [0, 1, 2], []),
        (members(0), {"replicas": 3}, [1], []),
        (members(0, available=False), {"replicas": 3}, [], []),
        (members(0, available=False), {"replicas": 3, "parallel": True}, [1, 2], []),
        (members(0, 2), {"replicas": 3}, [1], []),
        (members(0, 1, 2), {"replicas": 1}, [], ["s-2"]),
        (members(0, 1, 2), {"replicas": 0, "parallel": True}, [], ["s-2", "s-1", "s-0"]),
        (members(0, 1, revision="old"), {"replicas": 2}, [], ["s-1"]),
        ([*members(0, revision="old"), *members(1, available=False)], {"replicas": 2}, [], []),
        ([*members(0, revision="old"), *members(1)], {"replicas": 2}, [], ["s-0"]),
        (members(0, 1, revision="old"), {"replicas": 2, "partition": 1}, [], ["s-1"]),
        ([*members(0, revision="old"), *members(1)], {"replicas": 2, "partition": 1}, [], []),
        (members(0, 1, revision="old"), {"replicas": 2, "strategy": "OnDelete"}, [], []),
        ([Member(0, "s-0", "r", available=False, ended=True)], {"replicas": 1}, [], ["s-0"]),
        (members(5), {"replicas": 2, "first": 5}, [6], []),
    ],
)
def test_a_stateful_set_takes_one_step_at_a_time(have: list[Member], more: dict[str, Any], create: list[int], delete: list[str]) -> None:
    plan = make_plan(have, **{**PLAN, **more})
    assert (plan.create, plan.delete) == (create, delete)


@pytest.mark.parametrize(
    ("rolling", "most", "least"),
    [
        ({}, 5, 3),
        ({"maxSurge": 1, "maxUnavailable": 0}, 5, 4),
        ({"maxSurge": 0, "maxUnavailable": 0}, 4, 3),
        ({"maxSurge": "50%", "maxUnavailable": "50%"}, 6, 2),
    ],
)
def test_a_deployment_stays_within_bounds(rolling: dict[str, Any], most: int, least: int) -> None:
    found = bounds({"replicas": 4, "strategy": {"rollingUpdate": rolling}})
    assert (found.most, found.least) == (most, least)


def test_a_job_runs_as_many_as_are_still_needed_and_waits_longer_after_each_failure() -> None:
    assert wanted_active({"parallelism": 3, "completions": 4}, 2) == 2
    assert wanted_active({"parallelism": 3}, 0) == 3
    assert wanted_active({"parallelism": 3, "completions": 4, "suspend": True}, 0) == 0
    assert [retry_after(count, 100.0, 105.0) for count in (0, 1, 2, 20)] == [0.0, 5.0, 15.0, 595.0]


def test_template_hashes_tell_templates_apart() -> None:
    assert template_hash({"a": 1}) == template_hash({"a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 2})
    assert len(template_hash({})) == 10


# --- logs ---


def read(path: Path, **options: Any) -> bytes:
    wanted = LogOptions(**options)
    tail, formatter, found = Tail(path, wanted), Formatter(wanted), b""
    while data := tail.read():
        found += formatter.feed(data)
    tail.close()
    return found


def write(path: Path, data: bytes, limit: int = 10**9) -> None:
    stream = Stream(-1, "stdout", LogFile(str(path), limit))
    for start in range(0, len(data), 5000):
        stream._take(data[start : start + 5000])
    stream.finish()


@pytest.mark.parametrize("data", [b"a\nb\n", b"", b"\n\n", b"x" * (1 << 20) + b"\nend\n", bytes(range(256)) * 100 + b"\n", b"\r\n\x1b[31m<b>\r\n"])
def test_a_log_gives_back_what_was_written(tmp_path: Path, data: bytes) -> None:
    write(tmp_path / "log", data)
    assert read(tmp_path / "log") == data


def test_a_last_line_without_an_end_gets_one(tmp_path: Path) -> None:
    write(tmp_path / "log", b"one\ntwo")
    assert read(tmp_path / "log") == b"one\ntwo\n"


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 10])
def test_tails_count_lines_not_their_parts(tmp_path: Path, lines: int) -> None:
    written = [b"first\n", b"y" * (LINE * 3 + 5) + b"\n", b"last\n"]
    write(tmp_path / "log", b"".join(written))
    assert read(tmp_path / "log", tail=lines) == b"".join(written[-lines:] if lines else [])


def test_a_full_log_begins_anew_and_its_tail_reaches_over_both_files(tmp_path: Path) -> None:
    text = b"".join(b"line %06d\n" % number for number in range(5000))
    write(tmp_path / "log", text, limit=100_000)
    assert (tmp_path / "log.1").exists()
    assert (tmp_path / "log").stat().st_size <= 100_000
    whole = read(tmp_path / "log")
    assert text.endswith(whole)
    count = len((tmp_path / "log").read_bytes().splitlines()) + 10
    assert read(tmp_path / "log", tail=count) == b"".join(text.splitlines(keepends=True)[-count:])


def test_a_follower_goes_on_in_the_new_file(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "log"), 200)
    stream, formatter = Stream(-1, "stdout", log), Formatter(LogOptions())
    stream._take(b"0\n")
    tail, found = Tail(tmp_path / "log", LogOptions()), b""
    for number in range(1, 60):
        stream._take(b"%d\n" % number)
        while data := tail.read():
            found += formatter.feed(data)
        while data := tail.read():
            found += formatter.feed(data)
    tail.close()
    assert found == b"".join(b"%d\n" % number for number in range(60))


# --- files ---


def test_object_volumes_change_in_one_step(tmp_path: Path) -> None:
    assert write_atomically(tmp_path, {"a": (b"1", 0o644), "deep/b": (b"2", 0o600)})
    first = (tmp_path / "..data").resolve()
    assert not write_atomically(tmp_path, {"a": (b"1", 0o644), "deep/b": (b"2", 0o600)})
    assert write_atomically(tmp_path, {"a": (b"3", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert not (tmp_path / "deep").exists()
    assert not first.exists()


def test_a_hosts_file_keeps_its_inode_and_is_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    write_in_place(path, b"long content\n")
    inode = path.stat().st_ino
    write_in_place(path, b"short\n")
    assert path.stat().st_ino == inode
    assert path.read_bytes().strip() == b"short"
    assert path.stat().st_size == len(b"long content\n")


def test_paths_are_replaced_whole_where_there_are_no_namespaces() -> None:
    paths = {"/data": "/state/data", "/data/deep": "/state/deep", "/tmp": "/state/tmp"}
    assert (
        _replace_paths("cp /data/x /data/deep/y /database --to=/tmp /srv/data", paths) == "cp /state/data/x /state/deep/y /database --to=/state/tmp /srv/data"
    )


@pytest.mark.parametrize(
    ("image", "known"),
    [
        ("jupyterhub/singleuser:6.1", True),
        ("docker.io/jupyterhub/singleuser:6.1", True),
        ("daskdev/dask:2026.8.0-py3.11", True),
        ("busybox", True),
        ("docker.io/library/busybox:1", True),
        ("evil/jupyterhub/singleuser:6.1", False),
        ("nobody/nothing:1", False),
    ],
)
def test_images_stand_for_local_runtimes_by_pattern(image: str, known: bool) -> None:
    assert (Images.load(None).find(image) is not None) == known


def test_own_runtimes_come_before_the_built_in_ones_and_mistakes_are_named(tmp_path: Path) -> None:
    file = tmp_path / "runtimes.yaml"
    file.write_text("runtimes: [{images: ['busybox:*'], path: [/opt/mine/bin], env: {A: b}}]")
    found = Images.load(file).find("busybox:1")
    assert found is not None
    assert found.base_env()["PATH"].startswith("/opt/mine/bin:")
    file.write_text("runtimes: [{image: busybox}]")
    with pytest.raises(ValueError, match="image"):
        Images.load(file)


def test_image_names_are_completed() -> None:
    assert full_name("a") == "docker.io/library/a:latest"
    assert full_name("a/b:1") == "docker.io/a/b:1"
    assert full_name("host.example/a@sha256:00") == "host.example/a@sha256:00"


def test_the_spdy_dictionary_is_the_one_of_the_protocol() -> None:
    import zlib

    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_runtime_whose_programs_are_not_here_says_how_to_get_them(tmp_path: Path) -> None:
    file = tmp_path / "runtimes.yaml"
    file.write_text(f"runtimes: [{{images: ['engine:*'], path: [{tmp_path}/bin], needs: [{tmp_path}/bin/engine], obtain: run `make engines`}}]")
    found = Images.load(file).find("engine:1")
    assert found
    assert found.missing() == f"{tmp_path}/bin/engine is not on this machine; run `make engines`"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "engine").touch()
    assert found.missing() == ""
