"""Requests to a cluster's API and their errors: the exceptions of the Kubernetes client end here and become `k8s.errors`.

Every request has a timeout; connections are kept and reused.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import load_kube_config
from kubernetes.config.config_exception import ConfigException

from . import errors

Object = dict[str, Any]

CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0


class Transport:
    """One connection pool to one API server, and threads for requests side by side."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._client: ApiClient | None = None
        self._lock = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
            if self._threads is not None:
                self._threads.shutdown(wait=False, cancel_futures=True)
                self._threads = None

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Object | None = None,
        content_type: str = "",
        accept: str = "",
        seconds: float = READ_SECONDS,
    ) -> Object:
        response = self._open(method, path, query or {}, body=body, content_type=content_type, accept=accept, timeout=(CONNECT_SECONDS, seconds))
        try:
            return json.loads(response.data)
        except urllib3.exceptions.HTTPError as error:
            raise errors.Unreachable(f"the cluster's answer broke off: {type(error).__name__}") from error
        except ValueError as error:
            raise errors.ServerFault("the cluster's answer cannot be read") from error

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Object | None = None,
        content_type: str = "",
        accept: str = "",
        timeout: tuple[float, float],
        again: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; the answer's body is still to be read. Raises `k8s.errors`."""
        client = self._connected()
        headers = {"Accept": accept or "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        request = client.param_serialize(
            method,
            path,
            query_params=[(key, value) for key, value in query.items() if value],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = client.call_api(*request, _request_timeout=timeout).response
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise errors.Unreachable(f"the cluster does not answer: {_cause(error)}") from error
        if response.status < 400:
            return response
        if response.status == 401 and again:
            # The embedded cluster, or whoever rotates tokens, may have written a new kubeconfig.
            self._forget(client)
            return self._open(method, path, query, body=body, content_type=content_type, accept=accept, timeout=timeout, again=False)
        raise _error(response)

    def _connected(self) -> ApiClient:
        with self._lock:
            if self._client is None:
                configuration = Configuration()
                try:
                    load_kube_config(config_file=str(self.kubeconfig), client_configuration=configuration, persist_config=False)
                except (ConfigException, OSError) as error:
                    raise errors.Unreachable(f"there is no usable kubeconfig at {self.kubeconfig}") from error
                configuration.connection_pool_maxsize = 16
                # Everything sent here may be sent twice: applies, and deletes with a uid. A kept connection that the server
                # has just closed is the usual case.
                configuration.retries = urllib3.Retry(total=1, connect=0, read=1, redirect=0, status=0, other=0, allowed_methods=None, raise_on_status=False)
                self._client = ApiClient(configuration)
            return self._client

    def _forget(self, client: ApiClient) -> None:
        with self._lock:
            if self._client is client:
                self._client = None

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(max_workers=6, thread_name_prefix="cluster")
            return self._threads


def patience(response: urllib3.BaseHTTPResponse, seconds: float) -> None:
    """How long one read of an answer's body may take, from now on."""
    sock = getattr(getattr(response, "connection", None), "sock", None)
    if sock is not None:  # None: the whole body has been read already
        sock.settimeout(seconds)


def watch_event(line: bytes) -> tuple[str, Object]:
    """Type and object of one line of a watch. Raises what an ERROR event tells."""
    try:
        event = json.loads(line)
    except ValueError as error:
        raise errors.ServerFault("an event of a watch cannot be read") from error
    if event["type"] == "ERROR":
        status = event["object"]
        raise _by_status(int(status.get("code", 500)))(status.get("message", ""), reason=status.get("reason", ""))
    return event["type"], event["object"]


_CLASSES: dict[int, type[errors.ClusterError]] = {
    401: errors.Denied,
    403: errors.Denied,
    404: errors.Gone,
    409: errors.Conflict,
    410: errors.Expired,
    429: errors.Throttled,
}


def _by_status(code: int) -> type[errors.ClusterError]:
    return _CLASSES.get(code, errors.ServerFault if code >= 500 else errors.Rejected)


def _error(response: urllib3.BaseHTTPResponse) -> errors.ClusterError:
    """The project's own error for an answer of 400 and above."""
    try:
        status = json.loads(response.data)
        message, reason = str(status.get("message", "")), str(status.get("reason", ""))
    except (ValueError, AttributeError, urllib3.exceptions.HTTPError):
        message, reason = f"HTTP {response.status}", ""
    finally:
        response.release_conn()
    retry_after = response.headers.get("Retry-After", "")
    kind = _by_status(response.status)
    if kind is errors.Denied and "being terminated" in message:
        kind = errors.Terminating  # a namespace on its way out: it can be made again when it is gone
    return kind(message or f"HTTP {response.status}", reason=reason, retry_after=float(retry_after) if retry_after.isdigit() else None)


def _cause(error: BaseException) -> str:
    """Name of what went wrong, without addresses or headers."""
    reason = getattr(error, "reason", None)
    return type(reason).__name__ if isinstance(reason, BaseException) else type(error).__name__
