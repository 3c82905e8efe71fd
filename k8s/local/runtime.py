"""Everything of the embedded cluster that acts: nodes, scheduler, controllers, network, kubelet."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from typing import Any

from . import nodes
from .client import Client
from .controllers.all import controllers
from .kubelet.manager import Kubelet
from .kubelet.process import Isolation
from .network import Network
from .options import Options
from .scheduling import Scheduler

log = logging.getLogger(__name__)
ISOLATION = "ATELIER_CLUSTER_ISOLATION"  # root, user or plain; empty: the best that this machine permits


class Runtime:
    def __init__(self, kubelet: Kubelet) -> None:
        self.kubelet = kubelet
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_complain)
        self._tasks.append(task)

    async def stop(self, *, kill_pods: bool) -> None:
        """Ends the loops and, with `kill_pods`, every process of every pod; without it they run on and are found again at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.kubelet.stop(kill_pods=kill_pods)


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("%s ended: %r", task.get_name(), task.exception(), exc_info=task.exception())


async def start(client: Client, options: Options) -> Runtime:
    """Starts it all on the running loop. ValueError when the nodes' or runtimes' file is wrong."""
    isolation = await asyncio.to_thread(Isolation.detect, os.environ.get(ISOLATION, ""))
    if isolation.mode == "plain":
        log.warning("pods are not isolated: %s", isolation.problems or "asked for")
    network = Network(client, options.service_domain)
    kubelet = Kubelet(client, options, network, isolation)
    known = nodes.Nodes(client, nodes.load(options.nodes_file, kubelet.gpus), options, isolation)
    known.sync()
    runtime = Runtime(kubelet)
    runtime.add("nodes", known.run())
    for name, work in controllers(client, options):
        runtime.add(name, work)
    runtime.add("network", network.run())
    runtime.add("kubelet", kubelet.run())
    runtime.add("metrics", kubelet.meter.run())
    runtime.add("accelerators' metrics", kubelet.gpu_meter.run())
    runtime.add("scheduler", Scheduler(client).run())
    return runtime
