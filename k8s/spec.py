"""An environment as the cluster side sees it: frozen, resolved, free of Django. `workers.specs` makes one from a row.

`k8s.manifests` turns it into Kubernetes documents; `k8s.status` compares it with what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DeviceClaim:
    """Devices that the cluster allocates by Dynamic Resource Allocation: `count` of a DeviceClass, narrowed by CEL expressions."""

    device_class: str
    count: int
    selectors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Accelerators of one replica: counted by `resource_key`, or claimed (then there is no key). `extra`: amounts of further keys, such as
    device memory, of the replica."""

    slug: str
    resource_key: str
    count: int
    extra: Mapping[str, int] = field(default_factory=dict)
    claims: tuple[DeviceClaim, ...] = ()
    capabilities: tuple[str, ...] = ()  # beyond restricted Pod Security; the team has an exception for each
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    runtime_class: str = ""
    scheduler_name: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Network devices of one replica and what it takes to use them. `resource_key` empty: nothing is counted."""

    slug: str
    resource_key: str = ""
    count: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one replica may use. CPU in millicores, memory, shared memory and ephemeral storage in bytes; requests equal limits."""

    cpu_millis: int
    memory_bytes: int
    shm_bytes: int = 0
    ephemeral_bytes: int = 0  # 0: not limited
    devices: Devices | None = None
    network: NetworkSpec | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """How a port is shown to people."""

    title: str
    scheme: str = "http"
    path: str = "/"


@dataclass(frozen=True, kw_only=True)
class Port:
    name: str
    number: int
    endpoint: Endpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A check of a container: an HTTP path on a named port, or only that port when `path` is empty, or a command that ends with 0."""

    port: str = ""
    path: str = ""
    command: tuple[str, ...] = ()
    period_seconds: int = 2
    failure_threshold: int = 3


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """An empty folder of a replica's own, of at most `size_bytes`. `memory`: in memory, counted as the container's."""

    mount_path: str
    size_bytes: int
    memory: bool = False


@dataclass(frozen=True, kw_only=True)
class SecretKey:
    """One value of a secret of the environment."""

    secret: str
    key: str


@dataclass(frozen=True, kw_only=True)
class SecretMount:
    """A secret of the environment as files, one per key."""

    secret: str
    mount_path: str
    mode: int = 0o400


@dataclass(frozen=True, kw_only=True)
class Role:
    """One kind of replica. `command`, `args`, values of `env` and `stop_command` are Kubernetes' own, `$(VAR)` expansion included
    (a stop command has none). `files`: path -> text. `once`: it runs to its end, each replica tried again `retries` times, instead of being
    started again for ever. `stop_command` is run before a replica is ended, which may then take `stop_seconds` altogether."""

    name: str
    replicas: int
    image: str
    resources: Resources
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, SecretKey] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None
    volumes: tuple[Scratch, ...] = ()
    secret_mounts: tuple[SecretMount, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    scalable: bool = False
    once: bool = False
    retries: int = 0
    stop_command: tuple[str, ...] = ()
    stop_seconds: int = 0  # 0: the usual


@dataclass(frozen=True, kw_only=True)
class Home:
    """The home volume, mounted at `mount_path`, which is also HOME and the working directory."""

    claim: str
    size_bytes: int
    storage_class: str = ""  # empty: the cluster's default
    mount_path: str = "/home/jovyan"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """Data inside every pod of an environment, at `mount_path`, from one source: a claim, an object of the namespace, or empty space.

    Without a `mount_path` it only gives variables: `env`, and `secret_env` as name -> (Secret, key).
    """

    mount_path: str = ""
    read_only: bool = False
    claim: str = ""
    sub_path: str = ""  # within the claim
    config_map: str = ""
    secret: str = ""
    secret_files: Mapping[str, str] = field(default_factory=dict)  # key of the Secret -> file name
    scratch_bytes: int = 0
    in_memory: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Where all replicas of an environment have to be, or had better be: on nodes whose label `key` has this `value`."""

    key: str
    value: str
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class QueueOrder:
    """What a queue of another system (see `k8s.queues`) has to know of an environment."""

    system: str  # "kueue" | "volcano"
    queue: str
    priority: str = ""  # slug of the priority class
    topology_label: str = ""  # node label of the level within which all replicas have to be
    topology_required: bool = True


@dataclass(frozen=True, kw_only=True)
class StatusRule:
    """`phase` ("ready", "failed", "completed") holds when the value at the dotted `path` is one of `values`, or when `condition` is True."""

    phase: str
    path: str = ""
    values: tuple[str, ...] = ()
    condition: str = ""
    message: str = ""  # dotted path of the operator's words; empty: those of the condition


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator's object that stands for roles of an environment, see `k8s.operators`."""

    api_version: str
    kind: str
    plural: str
    body: Mapping[str, Any]  # everything beside apiVersion, kind and metadata; variables resolved, nodes still in it
    roles: frozenset[str]  # whose pods the operator makes
    status: tuple[StatusRule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """Everything that is needed to make an environment's objects."""

    id: str
    install: str
    name: str
    kind: str  # "notebook" | "cluster"
    team: str
    owner: str  # user name
    roles: tuple[Role, ...]  # a notebook has exactly one, named "notebook"
    namespace: str
    base_name: str  # names.object_name(name, id)
    home: Home | None = None
    expires_at: str = ""  # RFC 3339
    node_selector: Mapping[str, str] = field(default_factory=dict)
    service_domain: str = "svc.cluster.local"
    connect_env: Mapping[str, str] = field(default_factory=dict)  # for notebooks of the same owner, e.g. DASK_SCHEDULER_ADDRESS
    connect_snippet: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)  # name -> kind, "token" | "ssh-key"; made once per run
    success: str = ""  # the role whose end, with 0, is the end of the environment; it runs once
    topology: Topology | None = None
    gang: bool = True  # all replicas start together or none; False: each pod by itself, and it can be used when each role has its first
    queue: QueueOrder | None = None
    operator: Operator | None = None  # None: every role is a workload of our own
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TeamSpec:
    """What a team's namespace holds. `hard` is ResourceQuota's spec.hard, e.g. {"requests.cpu": "8"}; empty: no quota object."""

    slug: str
    install: str
    namespace: str
    hard: Mapping[str, str] = field(default_factory=dict)
    hub_cidrs: tuple[str, ...] = ()  # where the Hub and its proxy are
    hub_api_port: int = 8011
    egress_cidrs: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()  # Linux capabilities that its pods may have beyond restricted Pod Security
