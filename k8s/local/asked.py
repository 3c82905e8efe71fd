"""What a request asks for, read from its headers, its query and its body."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import yaml
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from . import managed
from .documents import Doc, encode
from .errors import StatusError, bad_request, unsupported_media
from .objects import Request

JSON = "application/json"
MAX_BODY = 3 * 1024 * 1024
PATCHES = ("application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml")


def common_options(http: HttpRequest, request: Request) -> None:
    dry = http.query_params.getlist("dryRun")
    if any(each != "All" for each in dry):
        raise bad_request(f'dryRun: Unsupported value: "{dry[0]}": supported values: "All"')
    request.dry_run = bool(dry)
    request.manager = http.query_params.get("fieldManager") or http.headers.get("user-agent", "").split("/", 1)[0][:128] or managed.UNKNOWN
    request.field_validation = http.query_params.get("fieldValidation") or "Warn"
    if request.field_validation not in {"Strict", "Warn", "Ignore"}:
        raise bad_request(f'fieldValidation: Unsupported value: "{request.field_validation}": supported values: "Ignore", "Strict", "Warn"')


def flag(http: HttpRequest, name: str) -> bool:
    return http.query_params.get(name, "").lower() in {"true", "1"}


def media(http: HttpRequest) -> str:
    kind = http.headers.get("content-type", "").split(";")[0].strip()
    if kind not in PATCHES:
        raise unsupported_media("the body of the request was in an unknown format - accepted media types include: " + ", ".join(PATCHES))
    return kind


async def body_of(http: HttpRequest) -> Any:
    kind = http.headers.get("content-type", "").split(";")[0].strip()
    if kind and kind != JSON and "yaml" not in kind and kind not in PATCHES and kind != "*/*":
        raise unsupported_media("the body of the request was in an unknown format - accepted media types include: application/json, application/yaml")
    raw = await http.body()
    if len(raw) > MAX_BODY:
        raise StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")
    try:
        return yaml.safe_load(raw) if "yaml" in kind and not raw.lstrip().startswith(b"{") else json.loads(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


async def delete_options(http: HttpRequest, request: Request) -> Doc:
    raw = await http.body()
    options: Doc = {}
    if raw.strip():
        found = await body_of(http)
        if not isinstance(found, dict):
            raise bad_request("the DeleteOptions provided are not an object")
        options = found
    query = http.query_params
    if query.get("gracePeriodSeconds"):
        options.setdefault("gracePeriodSeconds", query["gracePeriodSeconds"])
    for key in ("propagationPolicy",):
        if query.get(key):
            options.setdefault(key, query[key])
    if query.get("orphanDependents"):
        options.setdefault("orphanDependents", query["orphanDependents"].lower() == "true")
    if options.get("dryRun"):
        request.dry_run = True
    if options.get("gracePeriodSeconds") is not None:
        try:
            options["gracePeriodSeconds"] = int(options["gracePeriodSeconds"])
        except (TypeError, ValueError):
            raise bad_request(f"gracePeriodSeconds: Invalid value: {options['gracePeriodSeconds']!r}") from None
    if options.get("propagationPolicy") not in {None, "", "Background", "Foreground", "Orphan"}:
        raise StatusError(422, "Invalid", f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{options["propagationPolicy"]}": '
                          'supported values: "Background", "Foreground", "Orphan", null')  # fmt: skip
    if not options.get("propagationPolicy"):
        options.pop("propagationPolicy", None)
    return options


def continue_token(revision: int, namespace: str, name: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([revision, namespace, name]).encode()).decode().rstrip("=")


def continued(token: str) -> tuple[int, tuple[str, str]]:
    try:
        revision, namespace, name = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(revision), (str(namespace), str(name))
    except (ValueError, TypeError, binascii.Error):
        raise bad_request("continue key is not valid: unable to decode the token") from None


def json_response(body: Any, code: int = 200) -> Response:
    return Response(encode(body), code, media_type=JSON)
