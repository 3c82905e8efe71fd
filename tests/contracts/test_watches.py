"""Watches, through the official clients and by hand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kubernetes import client, watch
from kubernetes.informer import ADDED, SharedInformer

from .conftest import Http, configmap, wait_for
from .test_objects import space


def events(http: Http, path: str, seconds: int = 2) -> Iterator[dict[str, Any]]:
    """All events of a watch that the server ends after `seconds`."""
    answer = http("GET", f"{path}{'&' if '?' in path else '?'}watch=true&timeoutSeconds={seconds}")
    assert answer.code == 200, answer.text
    for line in answer.text.splitlines():
        yield json.loads(line)


def test_a_watch_tells_every_change_in_order(core: client.CoreV1Api, namespace: str) -> None:
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, configmap("w", x="1"))
    core.patch_namespaced_config_map("w", namespace, {"data": {"x": "2"}})
    core.delete_namespaced_config_map("w", namespace)
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=30):
        if event["object"].metadata.name == "w":
            seen.append((event["type"], (event["object"].data or {}).get("x")))
        if len(seen) == 3:
            break
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_a_watch_without_a_version_begins_with_what_is_there(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("there"))
    seen = [(each["type"], each["object"]["metadata"]["name"]) for each in events(http, space(namespace, "configmaps"))]
    assert ("ADDED", "there") in seen


def test_a_selector_turns_changes_into_coming_and_going(http: Http, namespace: str) -> None:
    start = http("GET", space(namespace, "configmaps")).json["metadata"]["resourceVersion"]
    path = space(namespace, "configmaps", "c")
    http("POST", space(namespace, "configmaps"), configmap("c"))
    for label in ("yes", "no"):
        http("PATCH", path, {"metadata": {"labels": {"in": label}}}, kind="application/merge-patch+json")
    seen = [each["type"] for each in events(http, space(namespace, "configmaps") + f"?labelSelector=in%3Dyes&resourceVersion={start}")]
    assert seen == ["ADDED", "DELETED"]


def test_a_watch_from_before_the_history_is_gone(http: Http, namespace: str) -> None:
    answer = http("GET", space(namespace, "configmaps") + "?watch=true&resourceVersion=1&timeoutSeconds=2")
    error = answer.json if answer.code == 410 else json.loads(answer.text.splitlines()[0])["object"]
    assert (error["code"], error["reason"]) in {(410, "Expired"), (410, "Gone")}


def test_bookmarks_say_where_the_initial_events_end(http: Http, namespace: str) -> None:
    http("POST", space(namespace, "configmaps"), configmap("b"))
    query = "?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    seen = list(events(http, space(namespace, "configmaps") + query))
    first = next(index for index, each in enumerate(seen) if each["type"] == "BOOKMARK")
    assert "b" in {each["object"]["metadata"]["name"] for each in seen[:first]}
    metadata = seen[first]["object"]["metadata"]
    assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(metadata["resourceVersion"]) > 0


def test_a_list_of_an_impossible_version_is_refused(http: Http, namespace: str) -> None:
    assert http("GET", space(namespace, "configmaps") + "?resourceVersion=abc").code == 400


def test_one_object_is_watched_by_name(http: Http, namespace: str) -> None:
    for name in ("left", "right"):
        http("POST", space(namespace, "configmaps"), configmap(name))
    seen = {each["object"]["metadata"]["name"] for each in events(http, space(namespace, "configmaps") + "?fieldSelector=metadata.name%3Dleft")}
    assert seen == {"left"}


def test_the_async_client_watches_too(kubeconfig: Path, http: Http, namespace: str) -> None:
    from kubernetes import aio

    async def first() -> str:
        configuration = aio.client.Configuration()
        await aio.config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        async with aio.client.ApiClient(configuration) as api:
            core = aio.client.CoreV1Api(api)
            await core.create_namespaced_config_map(namespace, configmap("async"))
            async with aio.watch.Watch() as watching:
                async for event in watching.stream(core.list_namespaced_config_map, namespace, timeout_seconds=30):
                    if event["object"].metadata.name == "async":
                        return str(event["type"])
        return ""

    assert asyncio.run(first()) == "ADDED"


def test_the_clients_informer_keeps_up(core: client.CoreV1Api, namespace: str) -> None:
    informer = SharedInformer(core.list_namespaced_config_map, namespace=namespace)
    added = threading.Event()
    informer.add_event_handler(ADDED, lambda found: added.set() if found.metadata.name == "informed" else None)
    informer.start()
    try:
        core.create_namespaced_config_map(namespace, configmap("informed", x="1"))
        assert added.wait(30)
        core.patch_namespaced_config_map("informed", namespace, {"data": {"x": "2"}})
        key = f"{namespace}/informed"
        wait_for(lambda: (informer.cache.get_by_key(key) or client.V1ConfigMap()).data == {"x": "2"}, "the informer to see the change")
        core.delete_namespaced_config_map("informed", namespace)
        wait_for(lambda: informer.cache.get_by_key(key) is None, "the informer to see the deletion")
    finally:
        informer.stop()
