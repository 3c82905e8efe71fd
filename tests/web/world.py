"""A small world made through the services: two teams, an outsider, an admin, a catalogue, nodes, environments in every state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from portal.domain import services
from portal.domain.lifecycle import State
from portal.domain.models import Accelerator, Environment, Flavor, Membership, Team, Template, User

GIB = 2**30
PASSWORD = "a-long-password-for-tests-1"
BUILTIN = Path(__file__).resolve().parents[2] / "portal" / "catalogue" / "builtin" / "templates"


@dataclass(kw_only=True)
class World:
    alice: User
    lena: User
    bob: User
    charlie: User
    admin: User
    vision: Team
    speech: Team


def make_world() -> World:
    """People, teams, catalogue and nodes."""
    people = {name: User.objects.create_user(name, f"{name}@example.org", PASSWORD) for name in ("alice", "lena", "bob", "charlie")}
    admin = User.objects.create_superuser("admin", "admin@example.org", PASSWORD)
    _catalogue()
    vision = services.team_create(actor=None, slug="vision", name="Vision")
    speech = services.team_create(actor=None, slug="speech", name="Speech")
    services.membership_set(actor=None, team=vision, user=people["alice"])
    services.membership_set(actor=None, team=vision, user=people["lena"], role=Membership.Role.LEAD)
    services.membership_set(actor=None, team=speech, user=people["bob"])
    for resource, limit in (("environments", 8), ("cpu", 24_000), ("memory", 96 * GIB), ("storage", 100 * GIB), ("accelerator:nvidia-a100-80g", 8)):
        services.quota_set(actor=None, team=vision, user=None, resource=resource, limit=limit)
    services.quota_set(actor=None, team=vision, user=people["alice"], resource="environments", limit=5)
    services.nodes_observed(
        [
            _node("this-machine", {"cpu": 8000, "memory": 32 * GIB, "pods": 110}, {"cpu": 2500, "memory": 6 * GIB, "pods": 7}),
            _node("sim-gpu-1", {"cpu": 64_000, "memory": 512 * GIB, "pods": 110, "nvidia.com/gpu": 8}, {"nvidia.com/gpu": 2, "cpu": 16_000}, simulated=True),
        ]
    )
    return World(**people, admin=admin, vision=vision, speech=speech)


def _node(name: str, allocatable: dict[str, int], used: dict[str, int], *, simulated: bool = False) -> dict[str, Any]:
    return {"name": name, "allocatable": allocatable, "used": used, "labels": {}, "taints": [], "ready": True, "simulated": simulated}


def _catalogue() -> None:
    for path in sorted(BUILTIN.glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        Template.objects.create(
            slug=document["slug"],
            version=document["version"],
            kind=document["kind"],
            icon=document["icon"],
            position=document["position"],
            title=document["title"],
            description=document["description"],
            spec=document,
        )
    chip = Accelerator.objects.create(
        slug="nvidia-a100-80g", title={"en": "NVIDIA A100 80 GB"}, family="gpu", vendor="nvidia", model="A100", resource_key="nvidia.com/gpu"
    )
    Flavor.objects.create(slug="small", title={"en": "Small", "zh-hans": "小型"}, cpu_millis=1000, memory_bytes=2 * GIB, position=10)
    Flavor.objects.create(slug="medium", title={"en": "Medium", "zh-hans": "中型"}, cpu_millis=4000, memory_bytes=8 * GIB, position=20)
    Flavor.objects.create(
        slug="a100-1",
        title={"en": "1 × A100"},
        cpu_millis=8000,
        memory_bytes=64 * GIB,
        accelerator=chip,
        accelerator_count=1,
        position=30,
    )
    Flavor.objects.create(slug="giant", title={"en": "Giant", "zh-hans": "巨型"}, cpu_millis=512_000, memory_bytes=4096 * GIB, position=90)


def launch(actor: User, name: str, template: str = "notebook", flavor: str = "small", team: str = "vision", **params: Any) -> Environment:
    return services.environment_request(actor=actor, name=name, template=template, flavor=flavor, team=team, params=params, expires_in=timedelta(hours=8))


def steps(*states: str) -> list[dict[str, str]]:
    """The steps of a notebook or cluster in these states."""
    titles = [
        ("quota", "Quota reserved"),
        ("queue", "Admitted by the queue"),
        ("pod", "Placed on a node"),
        ("volume", "Home volume attached"),
        ("image", "Image pulled"),
        ("ready", "Ready"),
    ]
    return [{"key": key, "title": title, "state": state, "message": ""} for (key, title), state in zip(titles, states, strict=False)]


def replica(environment: Environment, role: str, number: int | None, state: str = "running", **more: Any) -> dict[str, Any]:
    name = f"{environment.name}-{role}" + ("" if number is None else f"-{number}")
    return {
        "name": name,
        "role": role,
        "state": state,
        "ready": state == "running",
        "restarts": 0,
        "node": "this-machine",
        "address": "127.0.10.7",
        "reason": "",
        "message": "",
        "containers": [role],
        "simulated": False,
    } | more


def run_notebook(environment: Environment) -> None:
    """What the observer writes when a notebook has come up."""
    for to in (State.QUEUED, State.PROVISIONING):
        services.environment_move(environment.pk, to)
    services.environment_observe(
        environment.pk,
        {
            "replicas": [replica(environment, "notebook", None)],
            "endpoints": [],
            "steps": steps("done", "done", "done", "done", "done", "done"),
            "snippet": "",
            "hub_url": f"/user/{environment.owner.username}/{environment.name}/",
        },
    )
    services.environment_move(environment.pk, State.RUNNING)


def run_cluster(environment: Environment) -> None:
    """What the observer writes when a Dask cluster has come up."""
    host = f"{environment.name}-scheduler.atelier-vision.svc.cluster.local"
    for to in (State.QUEUED, State.PROVISIONING):
        services.environment_move(environment.pk, to)
    services.environment_observe(
        environment.pk,
        {
            "replicas": [replica(environment, "scheduler", 0)]
            + [replica(environment, "worker", n, node="sim-gpu-1" if n == 1 else "this-machine") for n in range(environment.workers)],
            "endpoints": [
                {"name": "comm", "role": "scheduler", "title": "Scheduler", "url": f"tcp://{host}:8786", "address": f"{host}:8786"},
                {"name": "dashboard", "role": "scheduler", "title": "Dashboard", "url": f"http://{host}:8787/status", "address": f"{host}:8787"},
            ],
            "steps": steps("done", "done", "done", "done", "done", "done"),
            "snippet": f'from dask.distributed import Client\n\nclient = Client("tcp://{host}:8786")\nclient\n',
        },
    )
    services.environment_move(environment.pk, State.RUNNING)


def fail(environment: Environment) -> None:
    """What the observer writes when an image cannot be pulled."""
    for to in (State.QUEUED, State.PROVISIONING):
        services.environment_move(environment.pk, to)
    message = "The image example/none:1 cannot be pulled: not found."
    services.environment_observe(
        environment.pk,
        {
            "replicas": [replica(environment, "notebook", None, "pending", reason="ErrImagePull", message=message)],
            "endpoints": [],
            "steps": steps("done", "done", "done", "done", "failed", "waiting"),
            "snippet": "",
        },
    )
    services.event_record(environment.pk, "warning", "ErrImagePull", message, source="pod/1")
    services.environment_move(environment.pk, State.FAILED, reason="ErrImagePull", message=message)


def provision(environment: Environment) -> None:
    """What the observer writes while a notebook is being set up."""
    for to in (State.QUEUED, State.PROVISIONING):
        services.environment_move(environment.pk, to)
    services.environment_observe(
        environment.pk,
        {
            "replicas": [replica(environment, "notebook", None, "starting")],
            "endpoints": [],
            "steps": steps("done", "done", "done", "done", "active", "waiting"),
            "snippet": "",
        },
    )
