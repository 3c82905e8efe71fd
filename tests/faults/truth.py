"""Do database, API, cluster and Hub say the same, and is it what people asked for?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx

from k8s import errors, names

from .installation import Installation
from .users import Wish

Object = dict[str, Any]


def differences(installation: Installation, wishes: list[Wish], *, others: Iterable[str] = ()) -> list[str]:
    """Sentences about what is not as it should be; empty when all is. `others`: environments that are none of this seed's."""
    try:
        api = {wish.name: _asked(installation, wish) for wish in wishes}
        objects, servers = installation.objects(), installation.servers()
    except (httpx.HTTPError, errors.ClusterError) as error:
        return [f"cannot be asked: {type(error).__name__}: {error}"]
    by_environment: dict[str, list[Object]] = {}
    for item in objects:
        by_environment.setdefault(item["metadata"]["labels"][names.ENVIRONMENT], []).append(item)
    found: list[str] = []
    for wish in wishes:
        own = by_environment.pop(wish.id, [])
        key = f"{wish.user}/{names.object_name(wish.name, wish.id)}"
        server = servers.pop(key, None)
        problems = _running(wish, api[wish.name], own, server) if wish.wanted == "running" else _at_rest(wish, api[wish.name], own, server)
        found += [f"{wish.name} ({wish.wanted}): {problem}" for problem in problems]
    for identifier, items in by_environment.items():
        if identifier not in others:
            found.append(f"objects of nobody: {identifier}: {', '.join(_name(item) for item in items)}")
    found += [f"server of nobody: {key}" for key in servers]
    return found or _book(installation, wishes)


def _asked(installation: Installation, wish: Wish) -> Object:
    headers = {"Authorization": f"Bearer {installation.token(wish.user)}"}
    answer = httpx.get(f"{installation.url}/api/v1/environments/{wish.id}", headers=headers, timeout=10, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def _running(wish: Wish, told: Object, objects: list[Object], server: Object | None) -> list[str]:
    if told["state"] != "running":
        return [f"is {told['state']}: {told['reason']} {told['message']}"]
    base = names.object_name(wish.name, wish.id)
    wanted = {base} if wish.template == "desk" else {f"{base}-head-0", *(f"{base}-worker-{number}" for number in range(wish.workers))}
    found = []
    pods = {item["metadata"]["name"]: _is_ready(item) for item in objects if item["kind"] == "Pod"}
    if pods != dict.fromkeys(wanted, True):
        found.append(f"pods (ready?) are {pods}, not {sorted(wanted)}")
    replicas = {item["name"]: item["ready"] for item in told["replicas"]}
    if replicas != dict.fromkeys(wanted, True):
        found.append(f"the API tells of {replicas}, not of {sorted(wanted)}")
    if told["workers"] != wish.workers and wish.template == "crew":
        found.append(f"has {told['workers']} workers, not {wish.workers}")
    parents = [item for item in objects if item["kind"] == "ConfigMap" and item["metadata"]["name"] == base]
    if len(parents) != 1 or parents[0]["metadata"].get("deletionTimestamp"):
        found.append("its parent object is not there")
    if wish.template == "desk" and not (server and server["ready"] and not server["pending"]):
        found.append(f"the Hub says {server and {key: server.get(key) for key in ('ready', 'pending', 'stopped')}}")
    return found


def _at_rest(wish: Wish, told: Object, objects: list[Object], server: Object | None) -> list[str]:
    found = [] if told["state"] == wish.wanted else [f"is {told['state']}: {told['reason']} {told['message']}"]
    if objects:
        found.append(f"left: {', '.join(_name(item) for item in objects)}")
    if server is not None:
        found.append(f"the Hub still has its server: {server.get('pending')}")
    if told["replicas"]:
        found.append("the API tells of replicas")
    return found


def _book(installation: Installation, wishes: list[Wish]) -> list[str]:
    """What only the database tells: quota, numbers of events, how often each was made."""
    seen = installation.rows([wish.id for wish in wishes])
    found = [f"quota drift: {line}" for line in seen["drift"]]
    for wish in wishes:
        row = seen["rows"].get(wish.id)
        if row is None:
            found.append(f"{wish.name}: lost")
            continue
        if seen["names"][wish.name] != [wish.id]:
            found.append(f"{wish.name}: made {len(seen['names'][wish.name])} times")
        if row["seqs"] != list(range(1, row["last_seq"] + 1)):
            found.append(f"{wish.name}: its events are numbered {row['seqs']}, the last should be {row['last_seq']}")
        if row["reserved"] and wish.wanted != "running":
            found.append(f"{wish.name}: {wish.wanted}, but holds quota: {row['reserved']}")
    if seen["unanswered"]:
        found.append(f"{seen['unanswered']} idempotency keys without an answer")
    return found


def _is_ready(pod: Object) -> bool:
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in pod.get("status", {}).get("conditions", ()))
    return ready and not pod["metadata"].get("deletionTimestamp")


def _name(item: Object) -> str:
    return f"{item['kind']} {item['metadata']['name']}"
