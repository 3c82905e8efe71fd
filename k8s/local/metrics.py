"""What is measured, as others ask for it: `metrics.k8s.io/v1beta1` for pods and nodes, and `/metrics` for real accelerators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from .documents import Doc, at, encode, labels_of, meta, name_of, namespace_of
from .errors import StatusError, method_not_allowed, not_found
from .kubelet.devices import SIMULATED
from .selectors import exact_name, label_predicate

if TYPE_CHECKING:
    from .client import Client
    from .kubelet.devices import GpuMeter
    from .kubelet.usage import Meter, Use

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
RESOURCES = (("nodes", "NodeMetrics", False), ("pods", "PodMetrics", True))  # plural, kind, namespaced


class Metrics:
    def __init__(self, client: Client, meter: Meter, gpus: GpuMeter) -> None:
        self.client = client
        self.meter = meter
        self.gpus = gpus

    def routes(self) -> list[BaseRoute]:
        base = f"/apis/{GROUP}/{VERSION}"
        found: list[BaseRoute] = [Route("/metrics", self.text, methods=["GET"])]
        for path, endpoint in (
            ("/nodes", self.nodes),
            ("/nodes/{name}", self.nodes),
            ("/pods", self.pods),
            ("/namespaces/{namespace}/pods", self.pods),
            ("/namespaces/{namespace}/pods/{name}", self.pods),
        ):
            found.append(Route(base + path, _guarded(endpoint), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]))
        return found

    # --- pods ------------------------------------------------------------------------------------------------------

    def pods(self, http: Request) -> Doc:
        space, name = http.path_params.get("namespace", ""), http.path_params.get("name", "")
        found = []
        for pod in self.client.list("Pod", space or None):
            if not name or name_of(pod) == name:
                shown = self._pod(pod)
                found += [shown] if shown else []
        return _answer(http, "PodMetrics", "pods", found)

    def _pod(self, pod: Doc) -> Doc | None:
        """None until every running container was measured twice."""
        if at(pod, "status.phase") != "Running":
            return None
        uses: dict[str, Use] = {}
        for status in [*at(pod, "status.initContainerStatuses", []), *at(pod, "status.containerStatuses", [])]:
            if "running" in (status.get("state") or {}):
                use = self.meter.uses.get((meta(pod)["uid"], status["name"]))
                if use is None:
                    return None
                uses[status["name"]] = use
        if not uses:
            return None
        head = _head("PodMetrics", pod, next(iter(uses.values())))
        head["metadata"]["namespace"] = namespace_of(pod)
        return {**head, "containers": [{"name": name, "usage": _usage(use.cpu, use.memory)} for name, use in uses.items()]}

    # --- nodes -----------------------------------------------------------------------------------------------------

    def nodes(self, http: Request) -> Doc:
        name = http.path_params.get("name", "")
        found = []
        for node in self.client.list("Node"):
            if not name or name_of(node) == name:
                shown = self._node(node)
                found += [shown] if shown else []
        return _answer(http, "NodeMetrics", "nodes", found)

    def _node(self, node: Doc) -> Doc | None:
        """This machine as a whole; a simulated node uses what its pods use."""
        machine = self.meter.machine
        if machine is None or not any(item["type"] == "Ready" and item["status"] == "True" for item in at(node, "status.conditions", [])):
            return None
        cpu, memory = machine.cpu, machine.memory
        if SIMULATED in labels_of(node):
            here = {meta(pod)["uid"] for pod in self.client.list("Pod") if pod["spec"].get("nodeName") == name_of(node)}
            uses = [use for (uid, _), use in self.meter.uses.items() if uid in here]
            cpu, memory = sum(use.cpu for use in uses), sum(use.memory for use in uses)
        return {**_head("NodeMetrics", node, machine), "usage": _usage(cpu, memory)}

    # --- accelerators ----------------------------------------------------------------------------------------------

    async def text(self, http: Request) -> Response:
        """Prometheus' text format, with the names of NVIDIA's exporter. Simulated devices are not measured and do not appear."""
        pods = {meta(pod)["uid"]: pod for pod in self.client.list("Pod")}
        lines = [
            "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization in percent, the highest of the last minute.",
            "# TYPE DCGM_FI_DEV_GPU_UTIL gauge",
        ]
        for gpu, percent, uid in self.gpus.read():
            pod = pods.get(uid)
            labels = {"gpu": str(gpu.index), "UUID": gpu.uuid, "modelName": gpu.product}
            if pod is not None:
                labels |= {"namespace": namespace_of(pod), "pod": name_of(pod)}
            shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
            lines.append(f"DCGM_FI_DEV_GPU_UTIL{{{shown}}} {percent}")
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def _guarded(endpoint: Callable[[Request], Doc]) -> Callable[[Request], Awaitable[Response]]:
    """Reading only, with refusals as Status objects."""

    async def answer(http: Request) -> Response:
        try:
            if http.method != "GET" or http.query_params.get("watch", "").lower() in {"1", "true"}:
                raise method_not_allowed()
            return Response(encode(endpoint(http)), media_type="application/json")
        except StatusError as error:
            return Response(encode(error.status()), error.code, media_type="application/json")

    return answer


def _answer(http: Request, kind: str, plural: str, found: list[Doc]) -> Doc:
    name = http.path_params.get("name", "")
    if name:
        if not found:
            raise not_found(GROUP, plural, name)
        return found[0]
    by_label = label_predicate(http.query_params.get("labelSelector", ""))
    by_name = exact_name(http.query_params.get("fieldSelector", ""))
    items = [item for item in found if (by_label is None or by_label(item)) and (not by_name or name_of(item) == by_name)]
    return {"kind": f"{kind}List", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": items}


def _head(kind: str, doc: Doc, use: Use) -> Doc:
    stamp = datetime.fromtimestamp(use.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata: Doc = {"name": name_of(doc), "creationTimestamp": stamp}
    if labels_of(doc):
        metadata["labels"] = dict(labels_of(doc))
    return {"kind": kind, "apiVersion": f"{GROUP}/{VERSION}", "metadata": metadata, "timestamp": stamp, "window": f"{use.window:.3f}s"}


def _usage(cpu: float, memory: int) -> Doc:
    return {"cpu": f"{int(cpu * 1e9)}n", "memory": f"{memory // 1024}Ki"}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
