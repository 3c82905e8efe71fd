"""What the portal orders from the Hub: which pod, for which environment. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from k8s import names

CONTAINER = "notebook"
PORT = 8888
# Seconds for which a single-user server believes what the Hub last said about a browser's token.
CACHE_SECONDS = 15


class BadOrder(ValueError):
    """The options are not what the portal sends; the message says what is wrong with which field."""


@dataclass(frozen=True)
class Order:
    """A checked order: the pod as the portal built it."""

    environment: str
    namespace: str
    pod: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])


def read(options: Any, *, server: str, install: str) -> Order:
    """The order in a server's `user_options`. Raises BadOrder.

    The token that may start servers is trusted with the pod's content, which namespace and admission bound. Checked is what the
    spawner's own working rests on: that it can find the pod again and that it is this server's.
    """
    if not isinstance(options, Mapping) or set(options) != {"environment", "namespace", "pod"}:
        raise BadOrder("A server's options are `environment`, `namespace` and `pod`; servers are started in the portal.")
    environment, namespace, pod = options["environment"], options["namespace"], options["pod"]
    if not isinstance(environment, str) or not environment:
        raise BadOrder("`environment` must be the environment's id.")
    if not isinstance(namespace, str) or not namespace.startswith(names.namespace("")):
        raise BadOrder(f"`namespace` must be a team's namespace, {names.namespace('<team>')}.")
    if not isinstance(pod, Mapping) or pod.get("kind") != "Pod" or pod.get("apiVersion") != "v1":
        raise BadOrder("`pod` must be a v1 Pod document.")
    metadata, spec = pod.get("metadata"), pod.get("spec")
    if not isinstance(metadata, Mapping) or not isinstance(spec, Mapping):
        raise BadOrder("`pod` must have metadata and spec.")
    if metadata.get("name") != server:
        raise BadOrder("`pod.metadata.name` must be the name of the server.")
    if metadata.get("namespace", namespace) != namespace:
        raise BadOrder("`pod.metadata.namespace` must be `namespace`.")
    labels = metadata.get("labels") or {}
    for label, value in {names.INSTALL: install, names.ENVIRONMENT: environment}.items():
        if labels.get(label) != value:
            raise BadOrder(f"`pod.metadata.labels[{label}]` must be {value!r}.")
    containers = spec.get("containers")
    if not isinstance(containers, list) or not all(isinstance(each, Mapping) for each in containers):
        raise BadOrder("`pod.spec.containers` must be a list of containers.")
    if sum(each.get("name") == CONTAINER for each in containers) != 1:
        raise BadOrder(f"`pod.spec.containers` must have exactly one container named {CONTAINER!r}.")
    return Order(environment=environment, namespace=namespace, pod=copy.deepcopy(dict(pod)))


def manifest(order: Order, env: Mapping[str, str]) -> dict[str, Any]:
    """The pod to create: the ordered one, with the JUPYTERHUB_* variables of `env` in its notebook container.

    The server listens on `$(POD_IP)` because pods may share one network namespace and differ by address alone; Kubernetes expands it
    from a variable that stands earlier in the list. `$(` in any other value is a literal and is escaped.
    """
    pod = copy.deepcopy(order.pod)
    pod["metadata"]["namespace"] = order.namespace
    container = next(each for each in pod["spec"]["containers"] if each["name"] == CONTAINER)
    hub = {name: value for name, value in env.items() if name.startswith("JUPYTERHUB_")}
    given = [each for each in container.get("env") or [] if each.get("name") not in hub and each.get("name") != "POD_IP"]
    container["env"] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        *given,
        *({"name": name, "value": _value(name, value, hub)} for name, value in sorted(hub.items())),
    ]
    command = container.get("command") or []
    if command and command[0].rsplit("/", 1)[-1] == "jupyterhub-singleuser":
        # Restricted pods never run as root. The embedded cluster's do when it runs as root itself, and the server would refuse to.
        container["args"] = [*(container.get("args") or []), f"--HubOAuth.cache_max_age={CACHE_SECONDS}", "--allow-root"]
    return pod


def _value(name: str, value: str, hub: Mapping[str, str]) -> str:
    if name == "JUPYTERHUB_SERVICE_URL":
        return f"http://$(POD_IP):{PORT}" + hub["JUPYTERHUB_SERVICE_PREFIX"].replace("$(", "$$(")
    return str(value).replace("$(", "$$(")
