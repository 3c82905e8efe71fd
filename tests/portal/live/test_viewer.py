"""Viewers of shared follows: nothing lost, nothing twice, whatever breaks between the pod and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from k8s.loglines import Position
from portal.live import follow as follow_module
from portal.live.access import Caller
from portal.live.follow import Line
from portal.live.hub import Hub
from portal.live.snapshot import Snapshot
from portal.live.viewer import Cursors, Gap, Item, Notice, Viewer
from portal.live.watch import Watch
from tests.k8s.log_server import LogServer

SECOND = 1_000_000_000
T0 = 1_795_374_000
PATIENCE = 20


def at(second: int, text: bytes, nanos: int = 0) -> tuple[int, bytes]:
    return (T0 + second) * SECOND + nanos, text


def looked(*pods: str, state: str = "running") -> Snapshot:
    document = {"state": state, "reason": "", "message": "", "kind": "cluster", "name": "x"}
    return Snapshot("atelier-vision", state, 0, document, tuple((pod, "main") for pod in pods), ())


class HandWatch(Watch):
    """A look at an environment that the test holds in its hand: no database."""

    async def events_after(self, seq: int, limit: int) -> list[dict[str, object]]:
        return []


class Reader:
    """A client: keeps what it got and the resume point it would send."""

    def __init__(self, hub: Hub, snapshot: Snapshot, after: Cursors | None = None, tail: int = 1000, replica: str = "") -> None:
        self.items: list[Item] = []
        self.watch = HandWatch(Caller(), UUID(int=0), asyncio.Event())
        self.watch.snapshot = snapshot
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.changed = asyncio.Event()
        self.viewer = Viewer(watch=self.watch, hub=hub, send=self._take, after=after, tail=tail, replica=replica)
        self.task = asyncio.create_task(self.viewer.run())

    async def _take(self, items: Sequence[Item]) -> None:
        await self.may_read.wait()
        self.items += items
        self.changed.set()

    @property
    def texts(self) -> list[str]:
        return [item.text for item in self.items if isinstance(item, Line) and not item.marker]

    @property
    def after(self) -> Cursors:
        lines = [item for item in self.items if isinstance(item, Line) and not item.marker]
        return Cursors.of({f"{line.replica}/{line.container}": str(line.position) for line in lines})

    def see(self, snapshot: Snapshot) -> None:
        self.watch.snapshot = snapshot
        self.watch.wake.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                assert not self.task.done() or self.task.exception() is None
                self.changed.clear()
                try:
                    await asyncio.wait_for(self.changed.wait(), 0.2)
                except TimeoutError:
                    pass

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LogServer]:
    server = LogServer()
    await server.start(tmp_path)
    yield server
    await server.stop()


@pytest.fixture
async def hub(server: LogServer) -> AsyncIterator[Hub]:
    hub = Hub(server.kubeconfig)
    yield hub
    await hub.close()


Open = Callable[..., Reader]


@pytest.fixture
async def view(hub: Hub) -> AsyncIterator[Open]:
    readers: list[Reader] = []

    def open_(snapshot: Snapshot, **options: object) -> Reader:
        readers.append(Reader(hub, snapshot, **options))  # type: ignore[arg-type]
        return readers[-1]

    yield open_
    for reader in readers:
        await reader.leave()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


async def test_history_comes_first_and_then_what_the_pod_prints(server: LogServer, view: Open) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    await server.write("w-0", at(1, b"one"), at(2, b"two"))
    reader = view(looked("w-0"))
    await reader.until(lambda: reader.texts == ["one", "two"])
    await server.write("w-0", at(3, b"three"))
    await reader.until(lambda: reader.texts == ["one", "two", "three"])
    assert [i.position for i in reader.items if isinstance(i, Line)] == [Position((T0 + n) * SECOND, 0) for n in (1, 2, 3)]


async def test_a_viewer_of_a_starting_pod_is_told_so_and_gets_the_first_line(server: LogServer, view: Open) -> None:
    server.create("w-0")
    reader = view(looked("w-0", state="provisioning"))
    await reader.until(lambda: any(isinstance(i, Notice) and i.state == "waiting" and i.reason == "ContainerCreating" for i in reader.items))
    server.begin("w-0", T0)
    await server.write("w-0", at(1, b"hello"))
    await reader.until(lambda: reader.texts == ["hello"])
    assert any(isinstance(i, Notice) and i.state == "live" and i.replica == "w-0" for i in reader.items)


async def test_who_waited_for_a_pod_gets_the_first_line_of_a_history_that_arrives_in_pieces(server: LogServer, view: Open) -> None:
    server.create("w-0")
    reader = view(looked("w-0", state="provisioning"))
    await reader.until(lambda: any(isinstance(i, Notice) and i.state == "waiting" and i.replica == "w-0" for i in reader.items))
    server.begin("w-0", T0)
    await server.write("w-0", *[at(1 + n, b"%d " % n + b"x" * 2000) for n in range(1500)])
    await reader.until(lambda: len(reader.texts) >= 1499 and any(isinstance(i, Notice) and i.state == "live" for i in reader.items))
    assert [text.split()[0] for text in reader.texts] == [str(n) for n in range(1500)]


async def test_a_connection_dropped_amid_a_line_loses_and_repeats_nothing(server: LogServer, view: Open) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    same = [at(5, b"same %d" % n) for n in range(4)]  # one time, several lines
    await server.write("w-0", at(1, b"one"), *same)
    reader = view(looked("w-0"))
    await reader.until(lambda: len(reader.texts) == 5 and server.open_follows == 1)
    for round_ in range(3):
        server.drop_connections(half=b"2026-11-22T19:00:06.000000000Z half a li")
        await server.write("w-0", at(6 + round_, b"after drop %d" % round_), at(6 + round_, b"and more"))
        await reader.until(lambda n=7 + 2 * round_: len(reader.texts) >= n and server.open_follows == 1)  # type: ignore[misc]
    expected = ["one", *(f"same {n}" for n in range(4)), *(t for r in range(3) for t in (f"after drop {r}", "and more"))]
    assert reader.texts == expected


async def test_a_client_that_comes_back_goes_on_where_it_was(server: LogServer, view: Open) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    await server.write("w-0", *[at(1, b"%d" % n) for n in range(10)])
    first = view(looked("w-0"))
    await first.until(lambda: len(first.texts) == 10)
    await first.leave()
    await server.write("w-0", *[at(1, b"%d" % n) for n in range(10, 20)])
    second = view(looked("w-0"), after=first.after)
    await second.until(lambda: len(second.texts) >= 10)
    assert second.texts == [str(n) for n in range(10, 20)]


async def test_what_left_the_ring_meanwhile_is_read_again_from_the_cluster(server: LogServer, view: Open, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "HISTORY_LINES", 50)
    server.create("w-0")
    server.begin("w-0", T0)
    await server.write("w-0", at(1, b"first"))
    first = view(looked("w-0"))
    await first.until(lambda: first.texts == ["first"])
    after = first.after
    await first.leave()
    await server.write("w-0", *[at(2 + n // 7, b"%d" % n) for n in range(3000)])
    second = view(looked("w-0"), after=after)
    await second.until(lambda: len(second.texts) >= 3000)
    assert second.texts == [str(n) for n in range(3000)]
    assert not [item for item in second.items if isinstance(item, Gap)]


async def test_a_tail_that_begins_amid_lines_of_one_time_numbers_them_as_every_other_reader_does(
    server: LogServer, view: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "HISTORY_LINES", 10)
    server.create("w-0")
    server.begin("w-0", T0)
    await server.write("w-0", *[at(1, b"a%d" % n) for n in range(20)], *[at(2, b"b%d" % n) for n in range(5)])
    reader = view(looked("w-0"), tail=8)
    await reader.until(lambda: len(reader.texts) >= 5)
    known = {item.text: item.position for item in reader.items if isinstance(item, Line)}
    assert known["b0"] == Position((T0 + 2) * SECOND, 0)
    assert known["b4"] == Position((T0 + 2) * SECOND, 4)
    everything = view(looked("w-0"), after=Cursors(default=Position(1, 0)))
    await everything.until(lambda: len(everything.texts) >= 25)
    assert everything.texts == [*(f"a{n}" for n in range(20)), *(f"b{n}" for n in range(5))]


async def test_a_slow_reader_gets_a_counted_gap_and_holds_up_nobody(server: LogServer, view: Open, hub: Hub) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    slow, quick = view(looked("w-0")), view(looked("w-0"))
    await quick.until(lambda: server.open_follows == 1 and len(quick.items) > 0)
    await slow.until(lambda: len(slow.items) > 0)
    slow.may_read.clear()
    total = 3 * follow_module.RING_LINES
    for start in range(0, total, 500):
        await server.write("w-0", *[at(1 + n // 100, b"%d" % n) for n in range(start, start + 500)])
        await quick.until(lambda n=start + 500: len(quick.texts) >= n)  # type: ignore[misc]
    assert quick.texts == [str(n) for n in range(total)]
    (follow,) = hub.follows.values()
    assert follow.ring.end - follow.ring.base <= follow_module.RING_LINES
    slow.may_read.set()
    await slow.until(lambda: slow.texts[-1:] == [str(total - 1)])
    missed = sum(item.missed or 0 for item in slow.items if isinstance(item, Gap))
    assert missed > 0
    assert missed + len(slow.texts) == total
    assert [int(t) for t in slow.texts] == sorted({int(t) for t in slow.texts})


async def test_a_restart_is_marked_and_the_end_of_the_instance_before_is_not_lost(server: LogServer, view: Open) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    await server.write("w-0", at(1, b"begun"))
    reader = view(looked("w-0"))
    await reader.until(lambda: reader.texts == ["begun"] and server.open_follows == 1)
    # the connection is gone when the container dies and comes back
    server.broken = True
    server.drop_connections()
    await reader.until(lambda: any(isinstance(i, Notice) and i.state == "interrupted" for i in reader.items))
    await server.write("w-0", at(2, b"last words"))
    await server.end("w-0", exit_code=3)
    server.begin("w-0", T0 + 4)
    await server.write("w-0", at(5, b"again"))
    server.broken = False
    await reader.until(lambda: reader.texts == ["begun", "last words", "again"])
    markers = [(i.marker, reader.items.index(i)) for i in reader.items if isinstance(i, Line) and i.marker]
    assert [m for m, _ in markers] == [{"code": "restarted", "restarts": 1, "exit_code": 3}]
    order = [i.text for i in reader.items if isinstance(i, Line)]
    assert order.index("last words") < markers[0][1]
    assert "restarted" in [i.marker["code"] for i in reader.items if isinstance(i, Line) and i.marker]


async def test_a_rotated_log_leaves_a_visible_mark(server: LogServer, view: Open) -> None:
    server.create("w-0")
    instance = server.begin("w-0", T0)
    await server.write("w-0", at(10, b"seen"))
    reader = view(looked("w-0"))
    await reader.until(lambda: reader.texts == ["seen"] and server.open_follows == 1)
    server.broken = True
    server.drop_connections()
    await reader.until(lambda: any(isinstance(i, Notice) and i.state == "interrupted" for i in reader.items))
    instance.lines[:] = [at(30, b"much later")]
    server.broken = False
    await reader.until(lambda: reader.texts == ["seen", "much later"])
    assert [i.marker for i in reader.items if isinstance(i, Line) and i.marker] == [{"code": "rotated"}]


async def test_two_hundred_viewers_share_one_follow_that_ends_with_the_last(server: LogServer, view: Open, hub: Hub) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    readers = [view(looked("w-0")) for _ in range(200)]
    await until(lambda: server.open_follows == 1)
    await server.write("w-0", *[at(1, b"%d" % n) for n in range(100)])
    for reader in readers:
        await reader.until(lambda r=reader: len(r.texts) >= 100)  # type: ignore[misc]
        assert reader.texts == [str(n) for n in range(100)]
    assert server.open_follows == 1
    assert len([q for q in server.log_requests if q.get("follow")]) == 1
    for reader in readers[1:]:
        await reader.leave()
    assert len(hub.follows) == 1
    await readers[0].leave()
    await until(lambda: server.open_follows == 0)
    assert hub.follows == {}


async def test_replicas_that_appear_later_are_followed_and_histories_are_merged_by_time(server: LogServer, view: Open) -> None:
    for pod in ("w-0", "w-1", "w-2"):
        server.create(pod)
        server.begin(pod, T0)
    await server.write("w-0", at(1, b"a1"), at(3, b"a3"))
    await server.write("w-1", at(2, b"b2"), at(4, b"b4"))
    await server.write("w-2", at(5, b"c5"))
    reader = view(looked("w-0", "w-1"))
    await reader.until(lambda: len(reader.texts) >= 4)
    assert reader.texts == ["a1", "b2", "a3", "b4"]
    reader.see(looked("w-0", "w-1", "w-2"))
    await reader.until(lambda: reader.texts[-1:] == ["c5"])
    one = view(looked("w-0", "w-1", "w-2"), replica="w-1")
    await one.until(lambda: one.texts == ["b2", "b4"])


async def test_a_viewer_sees_the_end_of_a_pod_and_is_told(server: LogServer, view: Open, hub: Hub) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    reader = view(looked("w-0"))
    await until(lambda: server.open_follows == 1)
    await server.write("w-0", at(1, b"bye"))
    await server.delete("w-0")
    reader.see(looked(state="stopped"))
    await reader.until(lambda: any(isinstance(i, Notice) and not i.replica and i.state == "ended" for i in reader.items))
    assert reader.texts == ["bye"]
    assert hub.follows == {}
    reader.see(looked(state="deleted"))
    await asyncio.wait_for(reader.task, PATIENCE)


async def test_a_cluster_that_is_down_is_reported_and_followed_again_when_it_is_back(server: LogServer, view: Open) -> None:
    server.create("w-0")
    server.begin("w-0", T0)
    server.broken = True
    reader = view(looked("w-0"))
    await reader.until(lambda: any(isinstance(i, Notice) and i.state == "interrupted" and "leader changed" in i.message for i in reader.items))
    server.broken = False
    await server.write("w-0", at(1, b"back"))
    await reader.until(lambda: reader.texts == ["back"])


@pytest.mark.parametrize("text", ["x", "w/c", "w/c=1", "W/c=1-1", "w/c=1-1,=2-2", "../x/c=1-1", "w/c/d=1-1"])
def test_a_bad_resume_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|position|sequence"):
        Cursors.parse(text)
