"""Pods as real processes, in every way to isolate them."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from k8s.local.documents import at

from .conftest import World, pod, pod_ip_env, processes_with, until

pytestmark = pytest.mark.integration


def objects(world: World) -> None:
    world.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "blue", "a.txt": "alpha\n"}})
    encoded = base64.b64encode(b"hunter2").decode()
    world.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "type": "Opaque", "data": {"password": encoded}})


async def test_a_pod_runs_and_its_exit_code_is_told(any_world: World) -> None:
    any_world.create(pod("once", "echo hello; exit 3"))
    found = await any_world.phase("once", "Failed", "Succeeded")
    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert found["status"]["phase"] == "Failed"
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert any_world.log("once") == "hello\n"
    assert [event.partition(":")[0] for event in any_world.events("once")] == ["Scheduled", "Pulled", "Created", "Started"]


async def test_environment_comes_from_fields_resources_maps_and_secrets(any_world: World) -> None:
    objects(any_world)
    env: list[dict[str, Any]] = [
        *pod_ip_env(),
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
        {"name": "MISSING", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "nothing", "optional": True}}},
        {"name": "BOTH", "value": "$(NAME)-$(COLOUR)-$(UNKNOWN)-$$(NAME)"},
    ]
    container = {"env": env, "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "P_"}], "resources": {"limits": {"memory": "64Mi"}}}
    script = 'echo "$NAME|$LABEL|$MEMORY|$COLOUR|$PASSWORD|${MISSING-unset}|$BOTH|$P_colour"; echo $(POD_IP)'
    lines = (await any_world.run("env", script, container=container)).splitlines()
    assert lines[0] == "env|env|64|blue|hunter2|unset|env-blue-$(UNKNOWN)-$(NAME)|blue"
    assert lines[1] == any_world.pod("env")["status"]["podIP"]
    assert lines[1].startswith("127.")


async def test_nothing_of_the_clusters_environment_reaches_a_pod(any_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", "do-not-tell")
    names = {line.partition("=")[0] for line in (await any_world.run("clean", "env", enableServiceLinks=False)).splitlines()}
    assert names <= {"PATH", "HOME", "HOSTNAME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "PWD", "SHLVL", "_", "OLDPWD", "TMPDIR"}


async def test_volumes_are_where_the_manifest_says(any_world: World) -> None:
    objects(any_world)
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "map", "configMap": {"name": "settings", "items": [{"key": "a.txt", "path": "deep/a.txt"}]}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "settings"}}, {"downwardAPI": {"items": [_label_item()]}}]}},
    ]
    mounts = [
        {"name": "scratch", "mountPath": "/no/such/place"},
        {"name": "map", "mountPath": "/etc/atelier"},
        {"name": "secret", "mountPath": "/home/someone/keys", "readOnly": True},
        {"name": "all", "mountPath": "/data/all"},
    ]
    script = (
        "echo w > /no/such/place/file && cat /no/such/place/file /etc/atelier/deep/a.txt /home/someone/keys/password; echo; cat /data/all/colour; echo;"
        " cat /data/all/labels; echo; stat -L -c %a /home/someone/keys/password"
    )
    lines = (await any_world.run("volumes", script, container={"volumeMounts": mounts}, volumes=volumes)).splitlines()
    assert lines == ["w", "alpha", "hunter2", "blue", 'app="volumes"', "400"]
    assert not Path("/no").exists()
    assert not Path("/etc/atelier").exists()


def _label_item() -> dict[str, Any]:
    return {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}


async def test_a_claim_outlives_its_pods(any_world: World) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    any_world.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "home"}, "spec": claim})
    more = {
        "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}],
        "container": {"workingDir": "/home/jovyan", "volumeMounts": [{"name": "home", "mountPath": "/home/jovyan"}]},
    }
    await any_world.run("writer", "echo kept > note", **more)
    any_world.delete("Pod", "writer")
    await any_world.gone("Pod", "writer")
    assert await any_world.run("reader", "cat /home/jovyan/note", **more) == "kept\n"
    bound = any_world.client.get("PersistentVolumeClaim", "default", "home") or {}
    path = Path((any_world.client.get("PersistentVolume", None, bound["spec"]["volumeName"]) or {})["spec"]["hostPath"]["path"])
    assert (path / "note").read_text() == "kept\n"
    any_world.delete("Pod", "reader")
    await any_world.gone("Pod", "reader")
    any_world.delete("PersistentVolumeClaim", "home")
    await until(lambda: not path.exists())
    await until(lambda: any_world.client.get("PersistentVolume", None, bound["spec"]["volumeName"]) is None)


async def test_a_claim_in_use_stays_until_its_pod_has_gone(world: World) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    world.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "home"}, "spec": claim})
    world.create(pod("user", "sleep 1000", volumes=[{"name": "home", "persistentVolumeClaim": {"claimName": "home"}}]))
    await world.phase("user", "Running")
    world.delete("PersistentVolumeClaim", "home")
    assert (world.client.get("PersistentVolumeClaim", "default", "home") or {})["metadata"]["deletionTimestamp"]
    world.delete("Pod", "user", grace=0)
    await world.gone("PersistentVolumeClaim", "home")


async def test_deletion_ends_every_process_of_a_pod_also_those_that_left_its_group(any_world: World) -> None:
    mark = f"7{os.getpid()}.25"
    any_world.create(pod("tree", f"setsid sleep {mark} & sleep {mark} & trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done"))
    await any_world.phase("tree", "Running")
    await until(lambda: len(processes_with(f"sleep\0{mark}")) == 2)
    any_world.delete("Pod", "tree")
    await any_world.gone("Pod", "tree")
    assert processes_with(f"sleep\0{mark}") == []


async def test_a_command_that_ignores_term_is_killed_after_the_grace_period(any_world: World) -> None:
    any_world.create(pod("stubborn", "trap '' TERM; echo up; while :; do sleep 0.05; done", terminationGracePeriodSeconds=1))
    await any_world.phase("stubborn", "Running")
    await until(lambda: any_world.log("stubborn") == "up\n")
    codes: list[int] = []

    def look() -> bool:
        found = any_world.pod("stubborn")
        code = at(found["status"]["containerStatuses"][0], "state.terminated.exitCode") if found else None
        codes.extend([code] if code is not None else [])
        return not found

    subscription = any_world.store.subscribe(["pods"], lambda change: codes.append(_code(change.object)))
    any_world.delete("Pod", "stubborn")
    await until(look)
    subscription.close()
    assert 137 in codes


def _code(document: dict[str, Any]) -> int:
    return int(at(document["status"]["containerStatuses"][0], "state.terminated.exitCode", -1))


async def test_a_pod_has_tmp_hosts_and_a_name_of_its_own(world: World) -> None:
    script = "echo x > /tmp/mine; ls /tmp; hostname; cat /etc/hostname; getent hosts named | cut -d' ' -f1; ps ax | wc -l"
    lines = (await world.run("named", script)).splitlines()
    assert lines[:4] == ["mine", "named", "named", world.pod("named")["status"]["podIP"]]
    assert int(lines[4]) < 10


async def test_the_clusters_state_is_hidden_with_the_folder_around_it_wherever_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than in /tmp, which pods have of their own anyway."""
    with TemporaryDirectory(prefix=".atelier-test-", dir=Path.home()) as folder:
        monkeypatch.setenv("ATELIER_CLUSTER_HIDE", folder)
        world = World(Path(folder) / "cluster")
        await world.begin()
        try:
            assert await world.run("curious", f"ls -A {folder}; echo seen") == "seen\n"
        finally:
            await world.end()


async def test_the_machine_is_read_only_to_pods_and_the_clusters_state_is_hidden(world: World) -> None:
    script = f"touch /usr/atelier-was-here 2>&1; ls {world.state}; touch /atelier-was-here && echo own root; grep NoNewPrivs /proc/self/status"
    out = await world.run("confined", script)
    assert "Read-only file system" in out
    assert "objects.sqlite3" not in out
    assert "NoNewPrivs:\t1" in out
    assert not Path("/usr/atelier-was-here").exists()
    assert not Path("/atelier-was-here").exists()


async def test_a_changed_config_map_reaches_a_running_pod(world: World) -> None:
    objects(world)
    volumes = [{"name": "map", "configMap": {"name": "settings"}}]
    container = {"volumeMounts": [{"name": "map", "mountPath": "/etc/atelier"}]}
    world.create(pod("follower", "while ! grep -q red /etc/atelier/colour; do sleep 0.05; done; cat /etc/atelier/new", container=container, volumes=volumes))
    await world.phase("follower", "Running")
    world.client.modify("ConfigMap", "default", "settings", lambda doc: doc.update(data={"colour": "red", "new": "fresh\n"}))
    await world.phase("follower", "Succeeded")
    assert world.log("follower") == "fresh\n"


async def test_sub_paths_mount_one_file_or_folder(world: World) -> None:
    objects(world)
    volumes = [{"name": "map", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}]
    mounts = [
        {"name": "map", "mountPath": "/etc/one.txt", "subPath": "a.txt"},
        {"name": "scratch", "mountPath": "/work-here", "subPathExpr": "$(NAME)/in"},
    ]
    env = [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    out = await world.run("sub", "cat /etc/one.txt; touch /work-here/x && ls /work-here", container={"volumeMounts": mounts, "env": env}, volumes=volumes)
    assert out == "alpha\nx\n"
    uid = world.pod("sub")["metadata"]["uid"]
    assert (world.state / "pods" / uid / "volumes" / "scratch" / "sub" / "in" / "x").exists()


async def test_shared_memory_has_the_size_that_was_asked_for(world: World) -> None:
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]
    container = {"volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}
    assert (await world.run("shm", "df -k /dev/shm | tail -1 | awk '{print $2}'", container=container, volumes=volumes)).strip() == "8192"


async def test_init_containers_and_sidecars_come_before_the_others(world: World) -> None:
    volumes = [{"name": "shared", "emptyDir": {}}]
    mount = [{"name": "shared", "mountPath": "/shared"}]
    inits = [
        {"name": "first", "image": "busybox", "command": ["sh", "-c", "echo first >> /shared/order"], "volumeMounts": mount},
        {
            "name": "beside",
            "image": "busybox",
            "restartPolicy": "Always",
            "command": ["sh", "-c", "echo beside >> /shared/order; touch /shared/up; sleep 1000"],
            "startupProbe": {"exec": {"command": ["test", "-e", "/shared/up"]}, "periodSeconds": 1},
            "volumeMounts": mount,
        },
    ]
    out = await world.run("ordered", "echo main >> /shared/order; cat /shared/order", container={"volumeMounts": mount}, volumes=volumes, initContainers=inits)
    assert out.split() == ["first", "beside", "main"]
    found = await world.phase("ordered", "Succeeded")
    assert [item["name"] for item in found["status"]["initContainerStatuses"]] == ["first", "beside"]
    await until(lambda: "terminated" in world.pod("ordered")["status"]["initContainerStatuses"][1]["state"])


async def test_a_failing_container_is_started_again_with_growing_pauses(world: World) -> None:
    world.create(pod("crash", "echo run; exit 1", restartPolicy="Always"))
    status = await until(lambda: _waiting(world, "crash", "CrashLoopBackOff"))
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert status["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main pod=crash_default(")
    assert world.pod("crash")["status"]["phase"] == "Running"
    assert any(event.startswith("BackOff: Back-off restarting failed container main in pod crash_default(") for event in world.events("crash"))


def _waiting(world: World, name: str, reason: str) -> dict[str, Any] | None:
    for status in at(world.pod(name), "status.containerStatuses", []):
        if at(status, "state.waiting.reason") == reason:
            return dict(status)
    return None


async def test_an_image_that_nothing_stands_for_cannot_be_pulled(world: World) -> None:
    world.create(pod("unknown", "true", container={"image": "nobody/nothing:1"}))
    status = await until(lambda: _waiting(world, "unknown", "ErrImagePull"))
    assert 'failed to resolve reference "docker.io/nobody/nothing:1"' in status["state"]["waiting"]["message"]
    status = await until(lambda: _waiting(world, "unknown", "ImagePullBackOff"))
    assert status["state"]["waiting"]["message"].startswith('Back-off pulling image "nobody/nothing:1"')
    assert any(event.startswith('Failed: Failed to pull image "nobody/nothing:1": failed to pull and unpack') for event in world.events("unknown"))
    world.delete("Pod", "unknown")
    await world.gone("Pod", "unknown")


async def test_a_command_that_is_not_there_is_a_start_error(any_world: World) -> None:
    any_world.create(pod("typo", "", container={"command": ["no-such-command"]}))
    found = await any_world.phase("typo", "Failed")
    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert 'exec: "no-such-command": executable file not found in $PATH' in ended["message"]


async def test_a_missing_config_map_is_waited_for(world: World) -> None:
    env = [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}}]
    world.create(pod("patient", "echo $COLOUR", container={"env": env}))
    status = await until(lambda: _waiting(world, "patient", "CreateContainerConfigError"))
    assert status["state"]["waiting"]["message"] == 'configmap "settings" not found'
    objects(world)
    await world.phase("patient", "Succeeded")
    assert world.log("patient") == "blue\n"


@pytest.mark.parametrize("groups", [True, False], ids=["control group", "watched"])
async def test_a_memory_hog_is_oom_killed(world: World, groups: bool) -> None:
    cgroups = world.runtime.kubelet.cgroups
    if groups and cgroups.memory is None:
        pytest.skip("this machine lets us make no memory groups")
    if not groups:
        cgroups.memory = cgroups.cpu = None
    hog = "import sys\ndata = []\nwhile len(data) < 100: data.append(bytearray(b'x' * 4_000_000))\nimport time; time.sleep(1000)"
    container = {"image": "python:3", "command": ["python3", "-c", hog], "resources": {"limits": {"memory": "64Mi"}}}
    world.create(pod("hog", "", container=container))
    found = await world.phase("hog", "Failed")
    ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")


async def test_probes_decide_on_readiness_and_life(world: World) -> None:
    script = "while [ ! -e /tmp/go ]; do sleep 0.05; done; touch /tmp/ready; while [ ! -e /tmp/sick ]; do sleep 0.05; done; sleep 1000"
    probes = {
        "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1},
        "livenessProbe": {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1},
    }
    world.create(pod("probed", script, restartPolicy="Always", container=probes, terminationGracePeriodSeconds=1))
    found = await world.phase("probed", "Running")
    assert not found["status"]["containerStatuses"][0]["ready"]
    tmp = world.state / "pods" / found["metadata"]["uid"] / "tmp"
    (tmp / "go").touch()
    await until(lambda: world.pod("probed")["status"]["containerStatuses"][0]["ready"])
    assert {"type": "Ready", "status": "True"}.items() <= _condition(world.pod("probed"), "Ready").items()
    (tmp / "ready").unlink()
    await until(lambda: not world.pod("probed")["status"]["containerStatuses"][0]["ready"])
    (tmp / "go").unlink()
    (tmp / "sick").touch()
    await until(lambda: world.pod("probed")["status"]["containerStatuses"][0]["restartCount"] >= 1)
    assert "Killing: Container main failed liveness probe, will be restarted" in world.events("probed")


def _condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(item for item in document["status"]["conditions"] if item["type"] == kind)


async def test_hooks_run_after_the_start_and_before_the_end(world: World, tmp_path: Path) -> None:
    volumes = [{"name": "seen", "hostPath": {"path": str(tmp_path)}}]
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo started > /seen/started"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /seen/stopping"]}},
    }
    world.create(pod("hooked", "sleep 1000", container={"lifecycle": hooks, "volumeMounts": [{"name": "seen", "mountPath": "/seen"}]}, volumes=volumes))
    await until(lambda: _condition_true(world.pod("hooked"), "Ready"))
    assert (tmp_path / "started").read_text() == "started\n"
    world.delete("Pod", "hooked")
    await world.gone("Pod", "hooked")
    assert (tmp_path / "stopping").read_text() == "stopping\n"


def _condition_true(document: dict[str, Any], kind: str) -> bool:
    return any(item["type"] == kind and item["status"] == "True" for item in at(document, "status.conditions", []))


async def test_a_deadline_fails_a_pod(world: World) -> None:
    world.create(pod("late", "sleep 1000", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))
    found = await world.phase("late", "Failed")
    assert found["status"]["reason"] == "DeadlineExceeded"
