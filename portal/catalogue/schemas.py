"""The form of catalogue documents, as JSON Schema. What a schema cannot say (references, quantities) is in `validator`."""

from __future__ import annotations

from typing import Any

from portal.domain import autoscale

from .operators import OPERATORS

_SLUG = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,58}[a-z0-9])?$"}
_ROLE = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$"}
_TEXTS = {
    "type": "object",
    "required": ["en"],
    "additionalProperties": False,
    "properties": {"en": {"type": "string", "minLength": 1}, "zh-hans": {"type": "string"}},
}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_COMMAND = {"type": "array", "items": {"type": "string"}}
_QUANTITY = {"type": ["string", "integer", "number"]}
_PORT_NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$"}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 10000}
_FAMILIES = ["gpu", "npu", "dcu", "mlu", "vpu", "fpga", "asic", "tpu"]


def _document(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


_KEY = {"type": "string", "maxLength": 120, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"}
_CAPABILITIES = {"type": "array", "items": {"type": "string", "pattern": "^[A-Z][A-Z_]{1,38}[A-Z]$"}, "uniqueItems": True}
_TOPOLOGY = _document(["level", "mode"], {"level": _SLUG, "mode": {"enum": ["required", "preferred"]}})


def _one_of(*forms: tuple[str | None, dict[str, Any]]) -> dict[str, Any]:
    """One of several forms, told apart by a key of theirs (None: it is no object; "": any object), so that a fault is told of the form
    that was meant and not as "not valid under any of the given schemas". The last form counts where no key tells."""
    *others, (_, schema) = forms
    for key, form in reversed(others):
        sign = {"not": {"type": "object"}} if key is None else {"type": "object", "required": [key]}
        schema = {"if": sign, "then": form, "else": schema}
    return schema


ACCELERATOR = _document(
    ["slug", "title", "family"],
    {
        "slug": _SLUG,
        "title": _TEXTS,
        "family": {"enum": _FAMILIES},
        "vendor": {"type": "string", "maxLength": 60},
        "model": {"type": "string", "maxLength": 60},
        "memory": _QUANTITY,
        "resource_key": _KEY,
        "resources": {"type": "object", "propertyNames": _KEY, "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}},
        "dra": _document(
            ["device_class"],
            {
                "device_class": {"type": "string", "maxLength": 200, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
                "selectors": {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 10000}, "maxItems": 32},
            },
        ),
        "sharing": {"enum": ["whole", "mig", "time-slice", "mps", "hami", "vnpu", "dra"]},
        "slice_of": _SLUG,
        "node_selector": _STRINGS,
        "tolerations": {
            "type": "array",
            "items": _document(
                [],
                {
                    "key": {"type": "string"},
                    "operator": {"enum": ["Exists", "Equal"]},
                    "value": {"type": "string"},
                    "effect": {"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
                    "tolerationSeconds": {"type": "integer"},
                },
            ),
        },
        "runtime_class": {"type": "string", "maxLength": 60},
        "scheduler_name": {"type": "string", "maxLength": 60},
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "env": _STRINGS,
        "capabilities": _CAPABILITIES,
        "quota_weight": {"type": "number", "minimum": 0, "maximum": 1000},
        "cost_per_hour": {"type": "number", "minimum": 0, "maximum": 1000000},
        "source": {"type": "string", "maxLength": 300},
    },
)

NETWORK = _document(
    ["slug", "title", "kind"],
    {
        "slug": _SLUG,
        "title": _TEXTS,
        "kind": {"enum": ["tcp", "rdma"]},
        "resource_key": _KEY,
        "annotations": _STRINGS,
        "capabilities": _CAPABILITIES,
        "env": _STRINGS,
        "topology": _TOPOLOGY,
        "source": {"type": "string", "maxLength": 300},
    },
)

FLAVOR = _document(
    ["slug", "title", "cpu", "memory"],
    {
        "slug": _SLUG,
        "title": _TEXTS,
        "cpu": _QUANTITY,
        "memory": _QUANTITY,
        "shm": _QUANTITY,
        "ephemeral_storage": _QUANTITY,
        "accelerator": _SLUG,
        "accelerator_count": {"type": "integer", "minimum": 1, "maximum": 1024},
        "network": _SLUG,
        "network_count": {"type": "integer", "minimum": 1, "maximum": 64},
        "position": _COUNT,
    },
)

_ENDPOINT = _document(
    ["title"], {"title": {"type": "string", "minLength": 1}, "scheme": {"type": "string", "pattern": "^[a-z][a-z0-9+.-]*$"}, "path": {"type": "string"}}
)
_PORT = _document(["name", "port"], {"name": _PORT_NAME, "port": {"type": "integer", "minimum": 1, "maximum": 65535}, "endpoint": _ENDPOINT})

_FRACTION = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_SECONDS = {"type": "integer", "minimum": 1, "maximum": 3600}
_PATH = {"type": "string", "pattern": "^/[^:]*[^/:]$"}
_SECRET = {"type": "string", "pattern": "^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$"}
_IMAGE = {"type": "string", "minLength": 1}
_FAMILY_IMAGES = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"enum": ["default", "cpu", *_FAMILIES]},
    "additionalProperties": _IMAGE,
}
_REPLICAS = _one_of(
    (None, {"type": "integer", "minimum": 1, "maximum": 1000}),
    ("param", _document(["param"], {"param": {"type": "string"}})),
    ("min", _document(["min", "max"], {key: {"type": "integer", "minimum": 0, "maximum": 1000} for key in ("min", "max", "default")})),
)
_ROLE_RESOURCES = _one_of(
    ("share", _document(["share"], {"share": _FRACTION, "accelerators": {"type": "boolean"}})),
    ("cpu", _document(["cpu", "memory"], {"cpu": _QUANTITY, "memory": _QUANTITY})),
)
_ENV = {
    "type": "object",
    "propertyNames": {"pattern": "^[-._a-zA-Z][-._a-zA-Z0-9]*$"},
    "additionalProperties": _one_of(
        (None, {"type": "string"}),
        ("secret", _document(["secret"], {"secret": _SECRET, "key": {"type": "string", "minLength": 1}})),
    ),
}
_VOLUME = _one_of(
    ("secret", _document(["secret", "mount_path"], {"secret": _SECRET, "mount_path": _PATH, "mode": {"type": "integer", "minimum": 0, "maximum": 0o777}})),
    ("size", _document(["mount_path", "size"], {"mount_path": _PATH, "size": _QUANTITY, "medium": {"enum": ["disk", "memory"]}})),
)
_FILES = {"type": "object", "minProperties": 1, "propertyNames": _PATH, "additionalProperties": {"type": "string"}}
_TIMES = {"period_seconds": _SECONDS, "failure_threshold": {"type": "integer", "minimum": 1, "maximum": 10000}}
_PROBE = _one_of(
    ("command", _document(["command"], {"command": {**_COMMAND, "minItems": 1}, **_TIMES})),
    ("port", _document(["port"], {"port": _PORT_NAME, "path": {"type": "string", "pattern": "^/"}, **_TIMES})),
)

TEMPLATE_ROLE = _document(
    ["name", "image"],
    {
        "name": _ROLE,
        "replicas": _REPLICAS,
        "image": _one_of((None, _IMAGE), ("", _FAMILY_IMAGES)),
        "command": _COMMAND,
        "args": _COMMAND,
        "env": _ENV,
        "resources": _ROLE_RESOURCES,
        "ports": {"type": "array", "items": _PORT},
        "volumes": {"type": "array", "items": _VOLUME},
        "files": _FILES,
        "readiness": _PROBE,
        "liveness": _PROBE,
        "startup": _PROBE,
        "run": {"enum": ["always", "once"]},
        "retries": {"type": "integer", "minimum": 0, "maximum": 100},
        "stop_command": {**_COMMAND, "minItems": 1},
        "stop_timeout": {"type": "string"},
    },
)

SECRETS = {"type": "object", "propertyNames": _SECRET, "additionalProperties": _document(["kind"], {"kind": {"enum": ["token", "ssh-key"]}})}

SUCCESS = _document(["role"], {"role": _ROLE})

IDLE = _document(
    ["after"],
    {
        "after": {"type": "string"},
        "warn": {"type": "string"},
        "cpu_percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
        "accelerator_percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 100},
    },
)

SCHEDULING = _document(
    [],
    {
        "topology": _TOPOLOGY,
        "preemptible": {"type": "boolean"},
        "preempt_grace": {"type": "string"},
        "queue": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        "gang": {"type": "boolean"},
        "priority": {"type": "string", "maxLength": 40},
    },
)

_GLOBS = {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9*?[\\]!-]{1,60}$"}, "minItems": 1, "uniqueItems": True}

# Which flavors a template may be asked for with; `cpu` is the family of those without accelerators.
FLAVORS = _document(
    [],
    {
        "families": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,20}$"}, "minItems": 1, "uniqueItems": True},
        "only": _GLOBS,
        "not": _GLOBS,
    },
)

AUTOSCALE = _document(
    ["metric", "target", "min", "max"],
    {
        "metric": {"enum": list(autoscale.METRICS)},
        "target": {"type": "number", "exclusiveMinimum": 0},
        "query": {"type": "string", "minLength": 1, "maxLength": 2000},
        "min": {"type": "integer", "minimum": 0},
        "max": {"type": "integer", "minimum": 1},
        "up_after": {"type": "string"},
        "down_after": {"type": "string"},
        "default": {"type": "boolean"},
    },
)

PRIORITY = _document(
    ["slug", "title", "value"],
    {
        "slug": _SLUG,
        "title": _TEXTS,
        "value": {"type": "integer", "minimum": -1000000, "maximum": 1000000},
        "everyone": {"type": "boolean"},
        "leads_only": {"type": "boolean"},
        "preempts": {"type": "boolean"},
    },
)

TEMPLATE = _document(
    ["slug", "version", "kind", "title", "roles"],
    {
        "slug": _SLUG,
        "version": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
        "kind": {"enum": ["notebook", "cluster"]},
        "icon": {"type": "string", "maxLength": 40},
        "position": _COUNT,
        "title": _TEXTS,
        "description": _TEXTS,
        "expires_in": {"type": "string"},
        "max_expires_in": {"type": "string"},
        "warn_before": {"type": "string"},
        "delete_after": {"type": "string"},
        "idle": IDLE,
        "scheduling": SCHEDULING,
        "flavors": FLAVORS,
        "replaces": {"type": "array", "items": {"type": "integer", "minimum": 1}, "uniqueItems": True},
        "params": {"type": "object"},
        "home": _document([], {"mount_path": {"type": "string", "pattern": "^/."}, "size": _QUANTITY}),
        "roles": {"type": "array", "minItems": 1, "items": TEMPLATE_ROLE},
        "secrets": SECRETS,
        "success": SUCCESS,
        "autoscale": AUTOSCALE,
        "enabled": {"type": "boolean"},  # how it begins; afterwards the admin says
        "operators": OPERATORS,
        "needs_operator": {"type": "boolean"},
        # A template that serves models: the formats it can serve (absent: any), and the parameter that takes the model's path in the pod.
        "serves": _document(
            [], {"formats": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}, "param": {"type": "string", "minLength": 1}}
        ),
        "connect": _document([], {"env": _STRINGS, "snippet": {"type": "string"}}),
    },
)
