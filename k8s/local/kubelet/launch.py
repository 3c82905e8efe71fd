"""What the supervisor of a container is told: command, environment, mounts, user, limits."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k8s.local import volumes
from k8s.local.documents import Doc, at, meta
from k8s.local.kubelet.env import ConfigError, container_env, expand
from k8s.local.kubelet.status import Container
from k8s.local.quantity import parse
from k8s.local.runtimes import LocalRuntime

if TYPE_CHECKING:
    from k8s.local.kubelet.pod import PodWorker

PYCACHE = "/var/cache/atelier/pycache"  # in containers; shared by those with a Python of this machine
LOG_LIMIT = 10 * 1024 * 1024


def launch_document(worker: PodWorker, container: Container, base: Path, runtime: LocalRuntime) -> Doc:
    """Everything for the next run of a container, whose folders are below `base`; makes that run's folder and clears old ones away.

    Raises ConfigError and VolumeError: what the pod names is not there (yet).
    """
    kubelet, spec = worker.kubelet, container.spec
    env = container_env(worker.pod, spec, worker.around(), {**runtime.base_env(), **worker.base_env()})
    argv = [expand(item, env) for item in spec.get("command") or runtime.command] + [expand(item, env) for item in spec.get("args") or []]
    if not argv:
        raise ConfigError("no command specified")
    directory = _run_directory(base, container.restarts)
    mounts = volumes.mounts(spec, worker.volumes, env) + _termination_log(spec, base)
    env.setdefault("HOME", "/")
    if runtime.prefixes:
        # Environments are read-only to pods: without a place of its own compiled code would be compiled at every start.
        mounts.append({"type": "bind", "target": PYCACHE, "source": private_directory(kubelet.options.state_dir / "pycache")})
        env.setdefault("PYTHONPYCACHEPREFIX", PYCACHE)
    cwd = spec.get("workingDir") or (runtime.home if runtime.home else "/")
    mounts += worker.private_mounts(mounts, [runtime.home] if runtime.home else [], runtime.prefixes)
    document: Doc = {
        "mode": kubelet.isolation.mode,
        "pidns": kubelet.isolation.pidns,
        "directory": str(directory),
        "root": str(directory / "root"),
        "hostname": worker.hostname,
        "argv": argv,
        "env": env,
        "cwd": cwd,
        "mounts": mounts,
        "directories": [cwd],
        "masks": kubelet.masks,
        "log": str(directory / "log"),
        "log_limit": LOG_LIMIT,
        "tty": bool(spec.get("tty")),
        **_security(spec, worker.pod),
        **_limits(worker, container),
    }
    container.container_id = f"atelier://{meta(worker.pod)['uid'].replace('-', '')}{container.name.encode().hex()[:24]}{container.restarts:08x}"
    return kubelet.plain_paths(document, worker) if kubelet.isolation.mode == "plain" else document


def _run_directory(base: Path, restarts: int) -> Path:
    """An empty folder for this run. That of the run before stays, for its log."""
    directory = base / str(restarts)
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "root").mkdir(parents=True)
    for old in base.glob("[0-9]*"):
        if int(old.name) < restarts - 1:
            shutil.rmtree(old, ignore_errors=True)
    return directory


def _termination_log(spec: Doc, base: Path) -> list[Doc]:
    path = spec.get("terminationMessagePath") or "/dev/termination-log"
    if path.startswith("/dev/"):  # a device directory cannot gain a file without losing its terminals
        return []
    file = base / "termination-log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"")
    return [{"type": "bind", "target": path, "source": str(file)}]


def _security(spec: Doc, pod: Doc) -> Doc:
    context, of_pod = spec.get("securityContext") or {}, at(pod, "spec.securityContext", {}) or {}
    capabilities = context.get("capabilities") or {}
    return {
        "privileged": bool(context.get("privileged")),
        "add_capabilities": [name.removeprefix("CAP_") for name in capabilities.get("add") or []],
        # Root without any capability cannot read files of other users, which a container's unprivileged user need not do either.
        "drop_capabilities": [name.removeprefix("CAP_") for name in capabilities.get("drop") or []],
        "run_as_user": context.get("runAsUser", of_pod.get("runAsUser")),
        "run_as_group": context.get("runAsGroup", of_pod.get("runAsGroup")),
    }


def _limits(worker: PodWorker, container: Container) -> dict[str, Any]:
    limits, requests = at(container.spec, "resources.limits", {}), at(container.spec, "resources.requests", {})
    memory = int(parse(limits["memory"])) if "memory" in limits else None
    millis = int(parse(limits["cpu"]) * 1000) if "cpu" in limits else None
    share = int(parse(requests["cpu"]) * 1000) if "cpu" in requests else None
    group = worker.kubelet.cgroups.create(f"{meta(worker.pod)['uid']}-{container.name}-{container.restarts}", memory, millis, share)
    # Where no control group says that memory is used up, the supervisor looks itself.
    watch = {"memory_watch": memory} if memory and not group.oom else {}
    return {"cgroup_procs": group.procs, "cgroup_oom": group.oom, "cgroup_dirs": group.dirs, **watch}


def private_directory(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    os.chmod(path, 0o700)
    return str(path)
