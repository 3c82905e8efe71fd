"""Syntax of names, labels and annotations, with the wording of Kubernetes' complaints."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .errors import Cause, invalid_value, too_long

_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_LABEL_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_QUALIFIED = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")
_PATH_PART = re.compile(r"[/%]")
_ENV = re.compile(r"^[ -<>-~]+$")  # printable ASCII without "="

LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character "
    "(e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric "
    "character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', "
    "regex used for validation is '[-._a-zA-Z0-9]+')"
)
ENV_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def label(text: str) -> list[str]:
    """What is wrong with a DNS label; empty when nothing is. The others alike."""
    return [*_longer(text, 63), *([] if _LABEL.match(text) else [LABEL_TEXT])]


def label_1035(text: str) -> list[str]:
    return [*_longer(text, 63), *([] if _LABEL_1035.match(text) else [LABEL_1035_TEXT])]


def subdomain(text: str) -> list[str]:
    return [*_longer(text, 253), *([] if _SUBDOMAIN.match(text) else [SUBDOMAIN_TEXT])]


def path_segment(text: str) -> list[str]:
    """Names of RBAC objects, which may hold nearly anything."""
    if text in {".", ".."}:
        return [f"may not be '{text}'"]
    return [f"may not contain '{found}'" for found in sorted(set(_PATH_PART.findall(text)))]


def qualified(text: str) -> list[str]:
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix or (slash and not prefix):
        if slash and not prefix:
            return ["prefix part must be non-empty"]
        return [f"a qualified name {QUALIFIED_TEXT.removeprefix('name part ')} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    found = [f"prefix part {each}" for each in subdomain(prefix)] if prefix else []
    if not name:
        found.append("name part must be non-empty")
    if len(name) > 63:
        found.append("name part must be no more than 63 characters")
    if not _QUALIFIED.match(name):
        found.append(QUALIFIED_TEXT)
    return found


def value(text: str) -> list[str]:
    return [*_longer(text, 63), *([] if _VALUE.match(text) else [VALUE_TEXT])]


def config_key(text: str) -> list[str]:
    if text in {".", ".."}:
        return [f"must not be '{text}'"]
    return [*_longer(text, 253), *([] if _KEY.match(text) else [KEY_TEXT])]


def env_name(text: str) -> list[str]:
    return [] if _ENV.match(text) else [ENV_TEXT]


def _longer(text: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} bytes"] if len(text.encode()) > limit else []


def labels(found: Mapping[str, str], field: str) -> Iterator[Cause]:
    for key, text in found.items():
        for why in qualified(key):
            yield invalid_value(field, key, why)
        for why in value(text):
            yield invalid_value(field, text, why)


def annotation_keys(found: Mapping[str, str], field: str) -> Iterator[Cause]:
    total = 0
    for key, text in found.items():
        total += len(key) + len(text)
        for why in qualified(key.lower()):
            yield invalid_value(field, key, why)
    if total > 256 * 1024:
        yield too_long(field, 256 * 1024)
