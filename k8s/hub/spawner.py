"""Spawns a server from a pod document that the portal built, on any Kubernetes API.

KubeSpawner's way of holding the state of pods is kept; how it builds pods, waits for them and reads events is replaced. Home volumes,
namespaces and policies are made before by the portal's worker and never touched here.

Rights it needs, cluster-wide because teams come and go: pods get, list, watch, create, delete; events list.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import aiohttp
from jupyterhub.spawner import SpawnException
from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner
from kubespawner.spawner import PodReflector
from traitlets import Bool, Unicode

from k8s import names

from . import order, trouble

_T = TypeVar("_T")

POLL_SECONDS = 0.05  # of the pod's state in memory, and of the server's port; KubeSpawner waits up to 5 s between looks
DELETE_SECONDS = 60.0
GRACE_SECONDS = 10
LONGEST_PAUSE = 3.0  # between tries to start with an API that cannot
LOOK_SECONDS = 2.0  # between questions to the API itself, where a pod is not in memory
NETWORK = (OSError, aiohttp.ClientError)  # what a request raises when nobody answers; timeouts are OSErrors
ANSWER = aiohttp.ClientTimeout(total=5, sock_connect=2)  # of a server that is asked whether it is there


class Refusal(SpawnException):
    """A start that fails for a reason that people can read; the progress stream shows the bare words."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.jupyterhub_message = message


class TirelessPodReflector(PodReflector):
    """KubeSpawner's reflector gives up after a minute without the API and stays dead; this one goes on."""

    async def _watch_and_update(self) -> None:
        while not self._stopping:
            await super()._watch_and_update()
            await asyncio.sleep(5)


class PortalSpawner(KubeSpawner):
    """One server. `user_options` is the portal's order, see `k8s.hub.order`; users have no right to give one."""

    install_id = Unicode(config=True, help="Value of the label atelier.dev/install on this installation's pods")
    # One reflector for all namespaces, see _start_watching_pods.
    events_enabled = Bool(False, config=True)
    delete_pvc = Bool(False, config=True)
    storage_pvc_ensure = Bool(False, config=True)
    delete_stopped_pods = Bool(False, config=True)  # its log is still to be archived

    _uid = ""
    _looked = 0.0  # time.monotonic() of the last question to the API whether the pod of this start is there

    # --- which pod ------------------------------------------------------------

    def _get_reflector_key(self, kind: str) -> tuple[str, None]:
        return (kind, None)

    async def _start_watching_pods(self, replace: bool = False) -> Any:
        """The pods of this installation in all namespaces, by label; other pods of the cluster are not held.

        A reflector whose first list failed is thrown away: left in place it would report every pod as gone.
        """
        key = self._get_reflector_key("pods")
        reflector = self.reflectors.get(key)
        if reflector is None:
            reflector = TirelessPodReflector(parent=self, labels={names.INSTALL: self.install_id, names.KIND: "notebook"}, omit_namespace=True)
            self.reflectors[key] = reflector
            try:
                await reflector.start()
            except BaseException:
                self.reflectors.pop(key, None)
                raise
        await asyncio.shield(reflector.first_load_future)
        return reflector

    def load_state(self, state: dict[str, Any]) -> None:
        """The pod's place. A Hub that died while a server was starting has no state of it, but still the order."""
        super().load_state(state)
        options = self.orm_spawner.user_options or {}
        if "namespace" not in state and isinstance(options.get("namespace"), str):
            self.namespace, self.pod_name = options["namespace"], self.name

    def clear_state(self) -> None:
        namespace = self.namespace
        super().clear_state()
        self.namespace, self.pod_name = namespace, self.name or self.pod_name

    @property
    def _key(self) -> str:
        return f"{self.namespace}/{self.pod_name}"

    async def _read_pod(self) -> dict[str, Any] | None:
        """The pod as the API has it now; None when it is not there. Raises ApiException and network errors."""
        try:
            response = await self.api.read_namespaced_pod(self.pod_name, self.namespace, _preload_content=False, _request_timeout=10)
            body = json.loads(await response.read())
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        if response.status == 404:
            return None
        if response.status >= 400:
            raise ApiException(status=response.status, reason=body.get("message"))
        return dict(body)

    def _is_ours(self, pod: Mapping[str, Any]) -> bool:
        """Whether the pod is of this installation and of the ordered environment."""
        labels = pod["metadata"].get("labels") or {}
        return labels.get(names.INSTALL) == self.install_id and labels.get(names.ENVIRONMENT) == (self.user_options or {}).get("environment")

    # --- start ------------------------------------------------------------------

    async def get_pod_manifest(self) -> dict[str, Any]:
        return order.manifest(self._order(), self.get_env())

    def _order(self) -> order.Order:
        try:
            return order.read(self.user_options, server=self.name, install=self.install_id)
        except order.BadOrder as error:
            raise Refusal(str(error), reason="order") from error

    async def _start(self) -> str:
        """Create the pod and wait until its server answers. Returns its address.

        Unlike KubeSpawner's this does not wait for the pod to be Ready, which comes with the next round of the readiness probe: it
        asks the server itself, many times a second. Raises Refusal with words for people.
        """
        ordered = self._order()
        self.namespace, self.pod_name, self.port = ordered.namespace, ordered.name, order.PORT
        try:
            await self._patiently(self._start_watching_pods)
            document = await self.get_pod_manifest()
            self._uid = await self._patiently(lambda: self._create(document))
            self._looked = time.monotonic()
        except ApiException as error:
            raise Refusal(_api_words(error), reason="api") from error
        # Stored now: should the Hub end before the server answers, its successor can find the pod.
        self.orm_spawner.state = self.get_state()
        self.db.commit()
        host = await self._container_runs()
        url = _origin(host)
        await self._server_answers(url)
        return url

    async def _patiently(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """What `ask` gives; tried again while the cluster's API is away, throttles, or has a fault of its own. A start that failed for
        such a reason would be given up for good. How long is bounded by `start_timeout`, and by whoever stops the server."""
        pause = 0.2
        while True:
            try:
                return await ask()
            except ApiException as error:
                if error.status != 429 and (error.status or 0) < 500:
                    raise
                said = _api_words(error)
            except NETWORK as error:
                said = f"The cluster's API does not answer: {type(error).__name__}"
            self.log.warning("Cannot start %s now, tried again: %s", self._key, said)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _create(self, pod: dict[str, Any]) -> str:
        """Create the pod; its uid. One left over from an earlier try of the same environment is removed first; anyone else's is not."""
        deadline = time.monotonic() + DELETE_SECONDS
        while True:
            try:
                return str((await self.api.create_namespaced_pod(self.namespace, pod, _request_timeout=15)).metadata.uid)
            except ApiException as error:
                # A real API server also answers 409 while a quota is being recounted; then there is no such pod, and trying again is right.
                if error.status != 409 or time.monotonic() > deadline:
                    raise
            present = await self._read_pod()
            if present is None:
                await asyncio.sleep(0.2)
            elif self._is_ours(present):
                await self.stop(now=True)
            else:
                raise Refusal(f"A pod named {self.pod_name} that is not of this environment is in the way.", reason="conflict")

    async def _container_runs(self) -> str:
        """Wait for the notebook container to run; the pod's address. How long is bounded by `start_timeout`, which JupyterHub enforces."""
        doubtful_since: float | None = None
        while True:
            pod = self._own_pod()
            if host := trouble.address(pod):
                return host
            await self._refuse_if_gone()
            failed = trouble.failure(pod) if pod else None
            if failed and failed[1]:
                raise Refusal(failed[0], reason="pod")
            if failed:
                doubtful_since = doubtful_since or time.monotonic()
                if time.monotonic() - doubtful_since > trouble.GRACE_SECONDS:
                    raise Refusal(failed[0], reason="pod")
            # A refused image goes ErrImagePull, then ImagePullBackOff, and for moments neither; only progress takes the doubt away.
            await asyncio.sleep(POLL_SECONDS)

    async def _server_answers(self, url: str) -> None:
        """Wait until the server answers HTTP, at most `http_timeout` seconds."""
        deadline = time.monotonic() + self.http_timeout
        async with aiohttp.ClientSession(timeout=ANSWER) as session:
            while not await self._answers(session, url):
                await self._refuse_if_gone()
                pod = self._own_pod()
                failed = trouble.failure(pod) if pod else None
                if failed and failed[1]:
                    raise Refusal(failed[0], reason="pod")
                if time.monotonic() > deadline:
                    raise Refusal(
                        f"The notebook's container runs, but nothing answers at {url} after {self.http_timeout} s. Does its image listen on $(POD_IP):"
                        f"{order.PORT}, and may the Hub connect to it?",
                        reason="http",
                    )
                await asyncio.sleep(POLL_SECONDS)

    async def _answers(self, session: aiohttp.ClientSession, url: str) -> bool:
        """Whether the server at `url` answers HTTP."""
        try:
            async with session.get(f"{url}{self.server.base_url}api", allow_redirects=False) as response:
                return bool(response.status < 500)
        except NETWORK:
            return False

    async def _refuse_if_gone(self) -> None:
        """Raise Refusal when the pod of this start is not there any more. Who only watches may never see it go: a pod without a node is
        deleted in one step, and a watch may begin after it."""
        if self._own_pod() is not None or time.monotonic() < self._looked + LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            pod = await self._read_pod()
        except (ApiException, *NETWORK):
            return
        if pod is None or pod["metadata"]["uid"] != self._uid:
            raise Refusal(trouble.DELETED, reason="pod")

    def _own_pod(self) -> dict[str, Any] | None:
        """The pod made by this start, as last seen; not a former one of the same name that is still in memory."""
        pod = self.pod_reflector.pods.get(self._key)
        return pod if pod is not None and pod["metadata"]["uid"] == self._uid else None

    # --- while it runs ------------------------------------------------------------

    async def poll(self) -> int | None:
        """None while the server runs, starts, or nobody can tell; its exit code once it has ended; 1 when it is gone.

        "Nobody can tell" must not read as "ended": the Hub would drop every server each time the cluster's API is away. A pod that is still
        on its way while no start is in progress was left by a Hub that died meanwhile; it counts as ended, and the next start replaces it.
        """
        try:
            pod = await self._look()
        except (ApiException, *NETWORK) as error:
            self.log.warning("Cannot see the pod %s: %s", self._key, type(error).__name__)
            return None
        if pod is None or not self._is_ours(pod):
            return 1
        code = trouble.ended(pod)
        if code is None and not trouble.address(pod) and not self._start_pending and not self._stop_pending:
            return 1
        return await self._checked() if code is None and self._check_pending else code

    async def _checked(self) -> int | None:
        """As `poll`, asked of a Hub that starts, once the server answers. JupyterHub itself would wait for that without an eye on the pod:
        one that goes meanwhile would hold its server, which can be neither stopped nor started while it is checked, for `http_timeout`."""
        deadline = time.monotonic() + self.http_timeout
        async with aiohttp.ClientSession(timeout=ANSWER) as session:
            while time.monotonic() < deadline:
                try:
                    pod = await self._look()
                except (ApiException, *NETWORK):
                    pod = None  # nobody can tell; what was known of it, `get_url` tells
                else:
                    if pod is None or not self._is_ours(pod) or not trouble.address(pod):
                        return 1
                if await self._answers(session, _origin(trouble.address(pod)) if pod else str(self.server.host)):
                    return None
                await asyncio.sleep(10 * POLL_SECONDS)
        return 1

    async def get_url(self) -> str:
        """Where the server is, asked of a Hub that starts: the pod knows better than the database when the last Hub died."""
        pod = self.pod_reflector.pods.get(self._key) if self.pod_reflector else None
        host = trouble.address(pod)
        return f"{_origin(host)}{self.server.base_url}" if host else str(self.server.url)

    async def _look(self) -> dict[str, Any] | None:
        """The pod, from memory when it is there. A watch may lag behind, so its absence is asked of the API itself."""
        await self._start_watching_pods()
        return self.pod_reflector.pods.get(self._key) or await self._read_pod()

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The pod's events while it starts, each once.

        Read with a request a second, and only while someone listens: a watch of all pods' events, KubeSpawner's way, carries the whole
        cluster's, and a watch per start holds a connection of the pool for as long as a pod waits for room.
        """
        seen: set[str] = set()
        share = 0.0
        while True:
            started = self._start_future
            done = started is not None and started.done()
            for event in await self._events():
                key = f"{event['metadata']['uid']}/{event.get('count')}"
                if key not in seen:
                    seen.add(key)
                    share += (90 - share) / 3
                    yield {"progress": int(share), "message": f"{event.get('reason')}: {event.get('message')}", "type": event.get("type")}
            if done:
                return
            await asyncio.sleep(1)

    async def _events(self) -> list[dict[str, Any]]:
        if not self._uid:
            return []
        selector = f"involvedObject.uid={self._uid}"
        try:
            response = await self.api.list_namespaced_event(self.namespace, field_selector=selector, _preload_content=False, _request_timeout=5)
            items = json.loads(await response.read()).get("items") or []
        except (ApiException, *NETWORK):
            return []
        return sorted(items, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")

    # --- stop -----------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """Delete the pod and wait until it is gone. Volumes stay, and so does a pod of that name that is not ours.

        Raises Refusal when it is still there after DELETE_SECONDS.
        """
        deadline = time.monotonic() + DELETE_SECONDS
        deleted = ""
        while time.monotonic() < deadline:
            try:
                pod = await self._read_pod()
                if pod is None or not self._is_ours(pod):
                    return
                uid = pod["metadata"]["uid"]
                if uid != deleted:
                    options = {"gracePeriodSeconds": 0 if now else GRACE_SECONDS, "preconditions": {"uid": uid}}
                    await self.api.delete_namespaced_pod(self.pod_name, self.namespace, body=options, _request_timeout=15)
                    deleted = uid
                await asyncio.sleep(0.1)
            except (ApiException, *NETWORK) as error:
                if isinstance(error, ApiException) and error.status == 404:
                    return
                self.log.warning("Cannot delete the pod %s: %s", self._key, _api_words(error) if isinstance(error, ApiException) else type(error).__name__)
                await asyncio.sleep(1)
        raise Refusal(f"The pod {self._key} is still there {DELETE_SECONDS:.0f} s after it was deleted.", reason="stop")

    async def delete_forever(self) -> None:
        """The server is removed: its pod goes too if it ended by itself and is still listed. Volumes stay."""
        if self.namespace and self.name:
            await self.stop()


def _origin(host: str) -> str:
    return f"http://[{host}]:{order.PORT}" if ":" in host else f"http://{host}:{order.PORT}"


def _api_words(error: ApiException) -> str:
    """What the API said, for people: its message names the quota or the field."""
    try:
        message = json.loads(error.body or "")["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    return f"The cluster refused the pod ({error.status}): {message}"
