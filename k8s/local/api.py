"""The HTTP side: from a path and a verb to a call of `Objects`, and back to bytes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from . import apply, discovery, openapi, patch, reviews, schema, subresources, views, watch
from .asked import JSON, PATCHES, body_of, common_options, continue_token, continued, delete_options, flag, json_response, media
from .documents import Doc, clone, encode, meta, name_of, namespace_of
from .errors import StatusError, bad_request, forbidden, gone, method_not_allowed, not_found, path_not_found, unsupported_media
from .kinds import Resource
from .objects import Objects, Request
from .selectors import exact_name, field_predicate, label_predicate
from .store import Entry

log = logging.getLogger(__name__)

# Kinds whose deletion answers with the object, as the real API server's do; all others answer with a Status.
_RETURN_DELETED = {"pods", "services", "serviceaccounts", "persistentvolumeclaims", "persistentvolumes", "resourcequotas"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a path names."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class Api:
    def __init__(self, objects: Objects, stopping: asyncio.Event) -> None:
        self.objects = objects
        self.store = objects.store
        self.kinds = objects.kinds
        self.stopping = stopping

    # --- routing ---------------------------------------------------------------------------------------------------

    async def handle(self, http: HttpRequest) -> Response:
        request = Request()
        try:
            response = await self._dispatch(http, request)
        except StatusError as error:
            response = json_response(error.status(), error.code)
            if error.details.get("retryAfterSeconds"):
                response.headers["Retry-After"] = str(error.details["retryAfterSeconds"])
        except Exception:
            log.exception("%s %s failed", http.method, http.url.path)
            response = json_response(StatusError(500, "InternalError", "Internal error occurred: see the cluster's log").status(), 500)
        for warning in dict.fromkeys(request.warnings):
            quoted = warning.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
            response.headers.append("Warning", f'299 - "{quoted}"')
        return response

    async def _dispatch(self, http: HttpRequest, request: Request) -> Response:
        path = http.scope["path"]
        parts = [unquote(each) for each in path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) > 2 and parts[1] == "v1":
            return await self._resource(http, request, "", "v1", parts[2:])
        if parts[0] == "apis" and len(parts) > 3:
            return await self._resource(http, request, parts[1], parts[2], parts[3:])
        if http.method != "GET":
            raise method_not_allowed() if parts[0] in {"api", "apis", "version"} else path_not_found()
        if parts[0] == "openapi":
            return openapi.respond(self.kinds, parts, http.headers.get("accept", ""))
        found = discovery.respond(self.kinds, parts, http.headers.get("accept", ""), http.headers.get("host", ""))
        if found is None:
            raise path_not_found()
        return Response(encode(found[0]), media_type=found[1])

    async def _resource(self, http: HttpRequest, request: Request, group: str, version: str, parts: list[str]) -> Response:
        if group in reviews.GROUPS and http.method == "POST" and len(parts) == 1:
            return json_response(reviews.answer(group, version, parts[0], await body_of(http)), 201)
        target = self._target(group, version, parts)
        if target is None:
            raise path_not_found()
        view = views.wanted(http.headers.get("accept", ""), http.query_params.get("includeObject", ""))
        if view is None:
            raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {JSON}, application/yaml")
        common_options(http, request)
        if target.subresource:
            return await self._subresource(http, request, target, view)
        if target.name:
            return await self._one(http, request, target, view)
        return await self._many(http, request, target, view)

    def _target(self, group: str, version: str, parts: list[str]) -> Target | None:
        namespace = ""
        if parts[0] == "namespaces" and not group and (len(parts) < 3 or parts[2] in {"status", "finalize"}):
            pass  # the namespace is itself the object
        elif parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        resource = self.kinds.by_path(group, version, parts[0])
        if resource is None or len(parts) > 3 or (namespace and not resource.namespaced) or any(not each for each in parts):
            return None
        name = parts[1] if len(parts) > 1 else ""
        if name and resource.namespaced and not namespace:
            return None
        return Target(resource=resource, namespace=namespace, name=name, subresource=parts[2] if len(parts) > 2 else "")

    async def _many(self, http: HttpRequest, request: Request, target: Target, view: views.Wanted) -> Response:
        match http.method:
            case "GET" if flag(http, "watch"):
                return self._watch(http, target, view)
            case "GET":
                return Response(self._list(http, target, view), media_type=JSON)
            case "POST":
                if target.resource.namespaced and not target.namespace:
                    raise method_not_allowed()
                given = await self._object(http, target.resource)
                doc = self.objects.create(target.resource, target.namespace, views.unconvert(target.resource, given), request)
                return await self._written(target.resource, doc, view, 201, request)
            case "DELETE":
                return await self._delete_many(http, request, target, view)
        raise method_not_allowed()

    async def _one(self, http: HttpRequest, request: Request, target: Target, view: views.Wanted) -> Response:
        resource = target.resource
        match http.method:
            case "GET":
                if flag(http, "watch"):
                    return self._watch(http, target, view)
                entry = self.store.entry(resource.store_key, target.namespace, target.name)
                if entry is None:
                    raise not_found(resource.group, resource.plural, target.name)
                return Response(views.one(resource, entry, view), media_type=JSON)
            case "PUT":
                given = views.unconvert(resource, await self._object(http, resource))
                doc = self.objects.update(resource, target.namespace, target.name, given, request)
                return await self._written(resource, doc, view, 200, request)
            case "PATCH":
                doc, created = await self._patch(http, request, target, "")
                return await self._written(resource, doc, view, 201 if created else 200, request)
            case "DELETE":
                options = await delete_options(http, request)
                doc, removed = self.objects.delete(resource, target.namespace, target.name, options, request)
                if removed and resource.store_key not in _RETURN_DELETED:
                    self.store.flush()
                    return json_response(views.deleted(resource, doc))
                return await self._written(resource, doc, view, 200, request)
        raise method_not_allowed()

    async def _written(self, resource: Resource, doc: Doc, view: views.Wanted, code: int, request: Request) -> Response:
        """Answers once the write is on the disk."""
        entry = self.store.entry(resource.store_key, namespace_of(doc), name_of(doc))
        if entry is None or entry.doc is not doc:
            entry = Entry(doc, int(meta(doc).get("resourceVersion") or 0))
        body = views.one(resource, entry, view)
        if not request.dry_run:
            self.store.flush()
        return Response(body, code, media_type=JSON)

    async def _object(self, http: HttpRequest, resource: Resource) -> Doc:
        given = await body_of(http)
        if not isinstance(given, dict):
            raise bad_request("the object provided is unrecognized (must be of type object)")
        kind, version = given.get("kind", resource.kind), given.get("apiVersion", resource.api_version)
        if kind != resource.kind or version != resource.api_version:
            raise bad_request(
                f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
                if kind == resource.kind
                else f'no kind "{kind}" is registered for version "{version}" in scheme "{resource.group or "core"}"'
            )
        return given

    # --- subresources ----------------------------------------------------------------------------------------------

    async def _subresource(self, http: HttpRequest, request: Request, target: Target, view: views.Wanted) -> Response:
        resource, name, space = target.resource, target.name, target.namespace
        match target.subresource:
            case "status" if resource.status:
                if http.method == "GET":
                    return await self._one(http, request, target, view)
                if http.method == "PUT":
                    doc = self.objects.update(resource, space, name, await self._object(http, resource), request, subresource="status")
                elif http.method == "PATCH":
                    doc, _ = await self._patch(http, request, target, "status")
                else:
                    raise method_not_allowed()
                return await self._written(resource, doc, view, 200, request)
            case "scale" if resource.scale:
                return await self._scale(http, request, target)
            case "finalize" if resource.key == "namespaces" and http.method == "PUT":
                doc = self.objects.finalize(resource, space, name, await self._object(http, resource))
                return await self._written(resource, doc, view, 200, request)
            case "binding" if resource.key == "pods" and http.method == "POST":
                answer = subresources.bind(self.objects, space, name, await body_of(http), request)
            case "eviction" if resource.key == "pods" and http.method == "POST":
                answer = subresources.evict(self.objects, space, name, await body_of(http), request)
            case "ephemeralcontainers" | "resize" if resource.key == "pods":
                raise forbidden("", "pods", name, f"the embedded cluster does not offer {target.subresource}")
            case _:
                raise path_not_found()
        self.store.flush()
        return json_response(answer, 201)

    async def _scale(self, http: HttpRequest, request: Request, target: Target) -> Response:
        resource, space, name = target.resource, target.namespace, target.name
        old = self.objects.live(resource, space, name)
        shown = subresources.scale_of(resource, old)
        if http.method == "GET":
            return json_response(shown)
        if http.method == "PUT":
            given = await body_of(http)
        elif http.method == "PATCH":
            body, kind = await body_of(http), media(http)
            given = patch.json_patch(shown, body) if kind == PATCHES[0] else patch.merge(shown, body)
        else:
            raise method_not_allowed()
        doc = subresources.rescale(self.objects, resource, old, given, request)
        self.store.flush()
        return json_response(subresources.scale_of(resource, doc))

    # --- patches ---------------------------------------------------------------------------------------------------

    async def _patch(self, http: HttpRequest, request: Request, target: Target, subresource: str) -> tuple[Doc, bool]:
        kind, body = media(http), await body_of(http)
        resource, space, name = target.resource, target.namespace, target.name
        if kind == "application/apply-patch+yaml":
            if not http.query_params.get("fieldManager"):
                raise bad_request('PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch')
            if not isinstance(body, dict):
                raise bad_request("error decoding YAML: the body is not an object")
            return apply.apply(self.objects, resource, space, name, body, request, subresource=subresource, force=flag(http, "force"))
        old = self.objects.live(resource, space, name)
        shown = views.convert(resource, old)
        if kind == PATCHES[0]:
            new = patch.json_patch(shown, body)
        elif not isinstance(body, dict):
            raise bad_request("the patch is not an object")
        elif kind == PATCHES[1]:
            new = patch.merge(shown, body)
        else:
            type_ = schema.of(resource)
            if type_ is None:
                raise unsupported_media("the body of the request was in an unknown format - accepted media types include: "
                                        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml")  # fmt: skip
            new = patch.strategic(type_, shown, body)
        if body and isinstance(body, dict) and not (body.get("metadata") or {}).get("resourceVersion"):
            new["metadata"] = {key: value for key, value in new["metadata"].items() if key != "resourceVersion"}
        return self.objects.update(resource, space, name, views.unconvert(resource, clone(new)), request, subresource=subresource), False

    # --- lists and watches -----------------------------------------------------------------------------------------

    def _selected(self, http: HttpRequest, target: Target) -> tuple[list[Entry], bool, Any]:
        """Entries in key order, whether all there are were taken, and the predicate."""
        fields = http.query_params.get("fieldSelector", "")
        by_label = label_predicate(http.query_params.get("labelSelector", ""))
        by_field = field_predicate(target.resource, fields)
        accepts = watch.everything(by_label, by_field)
        name = target.name or exact_name(fields)
        key = target.resource.store_key
        if name and (target.namespace or not target.resource.namespaced):
            one = self.store.entry(key, target.namespace, name)
            return ([one] if one and accepts(one.doc) else []), False, accepts
        table = self.store.objects.get(key, {})
        spots = sorted(spot for spot in table if not target.namespace or spot[0] == target.namespace)
        found = [table[spot] for spot in spots]
        if by_label is not None or by_field is not None:
            return [each for each in found if accepts(each.doc)], False, accepts
        return found, True, accepts

    def _list(self, http: HttpRequest, target: Target, view: views.Wanted) -> bytes:
        limit, token = http.query_params.get("limit", ""), http.query_params.get("continue", "")
        revision = self.store.revision
        asked = http.query_params.get("resourceVersion", "")
        if asked and not asked.isdigit():
            raise bad_request(f'resourceVersion: Invalid value: "{asked}": strconv.ParseUint: parsing "{asked}": invalid syntax')
        if asked.isdigit() and int(asked) > revision:
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            raise StatusError(504, "Timeout", f"Too large resource version: {asked}, current: {revision}", {"causes": [cause], "retryAfterSeconds": 1})
        entries, whole, _ = self._selected(http, target)
        metadata: Doc = {"resourceVersion": str(revision)}
        if token:
            revision, after = continued(token)
            if revision < self.store.oldest:
                raise gone(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter."
                )
            metadata["resourceVersion"] = str(revision)
            entries = [each for each in entries if (namespace_of(each.doc), name_of(each.doc)) > after]
        if limit.isdigit() and 0 < int(limit) < len(entries):
            rest = len(entries) - int(limit)
            entries = entries[: int(limit)]
            last = entries[-1].doc
            metadata["continue"] = continue_token(revision, namespace_of(last), name_of(last))
            if whole:
                metadata["remainingItemCount"] = rest
        return views.many(target.resource, entries, view, metadata)

    def _watch(self, http: HttpRequest, target: Target, view: views.Wanted) -> Response:
        query = http.query_params
        fields = query.get("fieldSelector", "")
        if target.name:
            fields = f"metadata.name={target.name}"
        accepts = watch.everything(label_predicate(query.get("labelSelector", "")), field_predicate(target.resource, fields))
        asked = query.get("resourceVersion", "")
        if asked and not asked.isdigit():
            raise bad_request(f'resourceVersion: Invalid value: "{asked}": strconv.ParseUint: parsing "{asked}": invalid syntax')
        initial = flag(http, "sendInitialEvents")
        bookmarks = flag(http, "allowWatchBookmarks")
        if initial and query.get("resourceVersionMatch") != "NotOlderThan":
            raise StatusError(422, "Invalid", 'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
                              "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")  # fmt: skip
        wanted = watch.Watch(
            resource=target.resource, namespace=target.namespace, accepts=accepts, view=view,
            since=None if initial or asked in {"", "0"} else int(asked), seconds=watch.lifetime(query.get("timeoutSeconds", "")),
            bookmarks=bookmarks, initial_end=initial and bookmarks,
        )  # fmt: skip
        return StreamingResponse(watch.stream(self.store, wanted, self.stopping), media_type=JSON)

    async def _delete_many(self, http: HttpRequest, request: Request, target: Target, view: views.Wanted) -> Response:
        if target.resource.namespaced and not target.namespace:
            raise method_not_allowed()
        options = await delete_options(http, request)
        entries, _, _ = self._selected(http, target)
        revision = str(self.store.revision)
        for each in entries:
            try:
                self.objects.delete(target.resource, namespace_of(each.doc), name_of(each.doc), options, request)
            except StatusError as error:
                if error.code != 404:
                    raise
        self.store.flush()
        return Response(views.many(target.resource, entries, view, {"resourceVersion": revision}), media_type=JSON)
