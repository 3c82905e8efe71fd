"""Reads pods' logs through the Kubernetes log API, asynchronously and with read rights only (`get` on pods and pods/log).

aiohttp is used bare: a follow costs one connection and no thread, and each chunk arrives as it came. (Beside httpx it took a third of the
processor time for the same stream and a lower latency; importing the official client here would cost every web process over a second.)
Only credential plugins are left to the official loader.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from yarl import URL

from . import errors
from .loglines import SHOWN_BYTES, RawLine, Splitter

CONNECT_SECONDS = 5
ANSWER_SECONDS = 30
# A quiet follow is opened again after this time: a connection that died without a word (node lost, proxy forgot it) looks quiet too.
QUIET_SECONDS = 240
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True)
class Access:
    """How to reach a cluster. `token_file` is read anew for each request: bound service account tokens are replaced every hour."""

    server: str
    tls: ssl.SSLContext | bool = True
    token: str = ""
    token_file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def authorization(self) -> dict[str, str]:
        token = self.token_file.read_text().strip() if self.token_file else self.token
        return {**self.headers, **({"Authorization": f"Bearer {token}"} if token else {})}


def _material(entry: Mapping[str, Any], key: str, base: Path) -> bytes | None:
    """A certificate or key of a kubeconfig, given inline (`<key>-data`) or as a path relative to the file."""
    if entry.get(f"{key}-data"):
        return base64.b64decode(entry[f"{key}-data"])
    return (base / entry[key]).read_bytes() if entry.get(key) else None


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], base: Path) -> ssl.SSLContext:
    ca = _material(cluster, "certificate-authority", base)
    context = ssl.create_default_context(cadata=ca.decode() if ca else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _material(user, "client-certificate", base), _material(user, "client-key", base)
    if certificate and key:
        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads files only; this one is 0600 and gone at once
            file.write(certificate + b"\n" + key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _named(document: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    for entry in document.get(f"{kind}s") or []:
        if entry.get("name") == name:
            return entry.get(kind) or {}
    raise errors.Unreachable(f"the kubeconfig has no {kind} named {name!r}")


def read_kubeconfig(path: Path) -> Access:
    """Access by the current context of a kubeconfig. Raises Unreachable when the file is absent or incomplete."""
    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "context", document["current-context"])
        cluster, user = _named(document, "cluster", context["cluster"]), _named(document, "user", context["user"])
        if user.get("exec") or user.get("auth-provider"):
            return _by_plugin(path, cluster)
        return Access(
            server=cluster["server"].rstrip("/"),
            tls=_tls(cluster, user, path.parent) if cluster["server"].startswith("https") else True,
            token=user.get("token") or "",
            token_file=path.parent / user["tokenFile"] if user.get("tokenFile") else None,
        )
    except OSError as error:  # absent, unreadable, or not a certificate (ssl.SSLError is an OSError)
        raise errors.Unreachable(f"cannot read the kubeconfig {path}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise errors.Unreachable(f"the kubeconfig {path} is incomplete: {error!r}") from error


def _by_plugin(path: Path, cluster: Mapping[str, Any]) -> Access:
    from kubernetes import client, config  # slow to import and seldom needed

    configuration = client.Configuration()
    config.load_kube_config(str(path), client_configuration=configuration)
    user = {"client-certificate": configuration.cert_file, "client-key": configuration.key_file}
    header = configuration.get_api_key_with_prefix("authorization")
    return Access(server=str(configuration.host).rstrip("/"), tls=_tls(cluster, user, path.parent), headers={"Authorization": header} if header else {})


def in_cluster() -> Access | None:
    """Access by the service account of the pod this process runs in; None outside of a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (_SERVICE_ACCOUNT / "token").exists():
        return None
    tls = ssl.create_default_context(cafile=str(_SERVICE_ACCOUNT / "ca.crt"))
    return Access(server=f"https://{f'[{host}]' if ':' in host else host}:{port}", tls=tls, token_file=_SERVICE_ACCOUNT / "token")


@dataclass(frozen=True)
class Container:
    """One container of a pod, as far as its log is concerned."""

    printed: bool = False  # it started at least once: there is a log
    running: bool = False
    restarts: int = 0
    started_at: int = 0  # of the present instance, seconds since 1970; 0 when unknown
    reason: str = ""
    message: str = ""
    exit_code: int | None = None  # of the instance that ended last


@dataclass(frozen=True)
class Pod:
    """One pod, as far as its logs are concerned."""

    uid: str
    phase: str
    reason: str
    message: str
    containers: Mapping[str, Container]


def _epoch(text: str | None) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp()) if text else 0
    except ValueError:
        return 0


def _container(status: Mapping[str, Any]) -> Container:
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated")
    running, ended, waiting = state.get("running"), state.get("terminated"), state.get("waiting") or {}
    final = ended or last or {}
    return Container(
        printed=bool(running or ended or last),
        running=bool(running),
        restarts=int(status.get("restartCount") or 0),
        started_at=_epoch((running or ended or {}).get("startedAt")),
        reason=waiting.get("reason") or (final.get("reason") if not running else "") or "",
        message=waiting.get("message") or (final.get("message") if not running else "") or "",
        exit_code=final.get("exitCode"),
    )


def read_pod(document: Mapping[str, Any]) -> Pod:
    """A pod's document in the words of this module."""
    status = document.get("status") or {}
    unscheduled: Mapping[str, Any] = next((c for c in status.get("conditions") or [] if c.get("type") == "PodScheduled" and c.get("status") == "False"), {})
    return Pod(
        uid=document["metadata"]["uid"],
        phase=status.get("phase") or "",
        reason=status.get("reason") or unscheduled.get("reason") or "",
        message=status.get("message") or unscheduled.get("message") or "",
        containers={c["name"]: _container(c) for c in status.get("containerStatuses") or []},
    )


async def _refuse(response: aiohttp.ClientResponse) -> None:
    """Raises the project's error for an answer of 300 or above."""
    text = (await response.content.read(16 * 1024)).decode(errors="replace")
    message, reason = text.strip()[:500], ""
    try:
        status = yaml.safe_load(text) if text.startswith("{") else {}  # JSON is YAML, and a cut body must not raise ValueError
        message, reason = status.get("message") or message, status.get("reason") or ""
    except (yaml.YAMLError, AttributeError):
        pass
    known: dict[int, type[errors.ClusterError]] = {401: errors.Denied, 403: errors.Denied, 404: errors.Gone, 409: errors.Conflict, 410: errors.Expired}
    known[429] = errors.Throttled
    kind = known.get(response.status) or (errors.ServerFault if response.status >= 500 else errors.Rejected)
    raise kind(message or f"HTTP {response.status}", reason=reason)


class LogClient:
    """Connections to one cluster's log API, for one event loop. `kubeconfig` may not exist yet: it is read when first needed and again when it changes."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self._kubeconfig = kubeconfig
        self._session: aiohttp.ClientSession | None = None
        self._access: Access | None = None
        self._read_at: int | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _current_access(self) -> Access:
        path = self._kubeconfig
        if path is None or not path.exists():
            inside = self._access or in_cluster()
            if inside is None:
                raise errors.Unreachable("no kubeconfig is there yet")
            self._access = inside
            return inside
        changed_at = path.stat().st_mtime_ns
        if self._access is None or self._read_at != changed_at:
            self._access, self._read_at = read_kubeconfig(path), changed_at
        return self._access

    @asynccontextmanager
    async def _get(self, path: URL, params: Mapping[str, str], quiet: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a GET; errors are the project's own. `quiet`: seconds without a byte after which to give up."""
        access = await asyncio.to_thread(self._current_access)
        if self._session is None:
            # no limit: each followed container keeps a connection; no cookies, no environment proxies
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=quiet)
        url = URL(access.server + str(path), encoded=True)
        try:
            async with self._session.get(
                url, params=params, headers=access.authorization(), ssl=access.tls, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status >= 300:
                    if response.status == 401:
                        self._read_at = None  # a plugin's token may have run out
                    await _refuse(response)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise errors.Unreachable(str(error) or type(error).__name__) from error

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """The pod, or None when there is none. Raises ClusterError."""
        try:
            async with self._get(URL("/api/v1/namespaces") / namespace / "pods" / name, {}, ANSWER_SECONDS) as response:
                return read_pod(await response.json(content_type=None))
        except errors.Gone:
            return None
        except ValueError as error:
            raise errors.ServerFault(f"the cluster's answer is not a pod: {error}") from error

    async def lines(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        previous: bool = False,
        tail: int | None = None,
        since: int | None = None,
        limit: int = SHOWN_BYTES,
        unfinished: bool = True,
    ) -> AsyncIterator[list[RawLine]]:
        """Lines of one container as they arrive, in lists of at least one.

        `since` (nanoseconds) is rounded down to a whole second, all that the API knows: the reader drops what it has seen. `limit` bounds
        the bytes kept of one line; `unfinished` tells whether a last line without its newline counts. Raises Rejected while the container
        waits to start and Gone without the pod. A follow ends without an error when the container did, when the server closed it, or after
        QUIET_SECONDS of silence.
        """
        params = {"container": container, "timestamps": "true"}
        if follow:
            params["follow"] = "true"
        if previous:
            params["previous"] = "true"
        if tail is not None:
            params["tailLines"] = str(tail)
        if since is not None:
            params["sinceTime"] = datetime.fromtimestamp(since // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        splitter = Splitter(limit)
        quiet = QUIET_SECONDS if follow else ANSWER_SECONDS
        async with self._get(URL("/api/v1/namespaces") / namespace / "pods" / pod / "log", params, quiet) as response:
            try:
                async for chunk in response.content.iter_any():
                    if lines := splitter.feed(chunk):
                        yield lines
            except aiohttp.SocketTimeoutError:
                if not follow:
                    raise
                # the unfinished line comes again, whole, with the next follow
                return
            if unfinished and (last := splitter.flush()):
                yield last
