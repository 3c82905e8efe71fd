"""Does it answer yet? One check for each process, cheap enough to be asked ten times a second while everything starts."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import yaml

from portal import settings


def redis_answers() -> bool:
    """True when the Redis-protocol server accepts the password."""
    if settings.REDIS_URL:
        import redis

        try:
            with redis.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=1, socket_timeout=1) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False
    password = settings.REDIS_PASSWORD.encode()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(settings.REDIS_SOCKET))
            client.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n*1\r\n$4\r\nPING\r\n" % (len(password), password))
            answer = b""
            while b"PONG" not in answer:
                chunk = client.recv(256)
                if not chunk or b"-" in chunk:
                    return False
                answer += chunk
            return True
    except OSError:
        return False


def database_migrated() -> bool:
    """True when every migration is applied and the catalogue is loaded. Needs Django to be set up."""
    from django.db import DatabaseError, connection
    from django.db.migrations.executor import MigrationExecutor

    from portal.domain.models import Template

    try:
        if not Template.objects.exists():  # cheap, and false for most of a first start
            return False
        executor = MigrationExecutor(connection)
        return not executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        return False
    finally:
        connection.close()


def cluster_answers() -> bool:
    """True when the embedded cluster says it is ready. A real one has its own credentials: whoever uses it reports what it refuses."""
    if not settings.EMBEDDED_CLUSTER:
        return settings.KUBECONFIG_PATH.is_file()
    try:
        cluster = yaml.safe_load(settings.KUBECONFIG_PATH.read_text())["clusters"][0]["cluster"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        return _get(cluster["server"] + "/readyz", context) == 200
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return False


def hub_answers() -> bool:
    """True when the Hub's API and, through the proxy, its pages answer."""
    return _get(settings.HUB_API_URL + "/") == 200 and _get(f"http://{settings.BIND}:{settings.HUB_PORT}/hub/health") == 200


def web_answers() -> bool:
    """True when the portal answers."""
    return _get(f"http://{settings.BIND}:{settings.PORT}/healthz") == 200


def _get(url: str, context: ssl.SSLContext | None = None) -> int:
    """Status of a GET that no proxy of the environment comes between; 0 when nothing answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return 0


def worker_answers() -> bool:
    """True when a worker consumes from the queue."""
    from portal.celery import app

    try:
        return bool(app.control.inspect(timeout=0.3, limit=1).ping())
    except Exception:  # whatever the broker's client raises, it does not answer yet
        return False


ANSWERS: dict[str, Callable[[], bool]] = {
    "redis": redis_answers,
    "database": database_migrated,
    "cluster": cluster_answers,
    "hub": hub_answers,
    "worker": worker_answers,
    "web": web_answers,
}


def wait_for(names: tuple[str, ...], *, timeout: float = 120) -> None:
    """Block until each of `names` answers. Raises TimeoutError naming the one that does not."""
    deadline = time.monotonic() + timeout
    for name in names:
        while not ANSWERS[name]():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not answer after {timeout:.0f} s")
            time.sleep(0.1)
