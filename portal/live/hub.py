"""The follows of this process, shared: the first viewer of a container opens one, the last to leave closes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from weakref import WeakKeyDictionary

from django.conf import settings

from k8s.logs import LogClient

from .follow import Follow, Key


class Hub:
    """Follows by what they follow. Belongs to one event loop."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self.client = LogClient(kubeconfig)
        self.follows: dict[Key, Follow] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def acquire(self, key: Key, wake: asyncio.Event) -> Follow:
        """The follow of `key`; `wake` is set whenever it has something new, until `release`."""
        follow = self.follows.get(key)
        if follow is None:
            follow = self.follows[key] = Follow(key, self.client)
        follow.viewers.add(wake)
        return follow

    def release(self, key: Key, wake: asyncio.Event) -> None:
        """Leaves a follow. Never waits, so that it can be called while being cancelled."""
        follow = self.follows.get(key)
        if follow is None:
            return
        follow.viewers.discard(wake)
        if not follow.viewers:
            del self.follows[key]
            task = asyncio.create_task(follow.stop())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Ends every follow and connection."""
        follows, self.follows = list(self.follows.values()), {}
        await asyncio.gather(*(follow.stop() for follow in follows), *self._closing)
        await self.client.close()


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def current_hub() -> Hub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    hub = _hubs.get(loop)
    if hub is None:
        hub = _hubs[loop] = Hub(Path(settings.KUBECONFIG_PATH))
    return hub
