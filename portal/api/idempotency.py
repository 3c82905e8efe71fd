"""`Idempotency-Key` on POST: repeating a request with the same key answers the same and has its effect once."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from hashlib import sha256
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response

from portal.domain.errors import DomainError, ValidationError
from portal.domain.models import IdempotencyKey

KEPT = timedelta(hours=24)


class KeyReused(DomainError):
    """The key was used for another request."""

    status = 422
    code = "idempotency_key_reused"
    title = "Idempotency-Key already used"


def idempotent(*, secret: str = "") -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Decorates a view's POST handler. `secret` names a field of the answer that is not kept and comes back as null.

    Key and effect are written in one transaction: a crash leaves neither, a refusal frees the key, and a second request with the same key
    waits on the unique index for the first one to end.
    """

    def decorate(handler: Callable[..., Response]) -> Callable[..., Response]:
        @wraps(handler)
        def wrapper(view: Any, request: Any, *args: Any, **kwargs: Any) -> Response:
            key = request.headers.get("Idempotency-Key")
            if key is None:
                return handler(view, request, *args, **kwargs)
            if not 1 <= len(key) <= 200 or not key.isascii() or not key.isprintable():
                raise ValidationError.field("Idempotency-Key", "Use 1 to 200 printable ASCII characters, such as a UUID.")
            text = json.dumps([request.method, request.get_full_path(), request.data], sort_keys=True)
            fingerprint = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            with transaction.atomic():
                IdempotencyKey.objects.filter(user=request.user, created_at__lt=timezone.now() - KEPT).delete()
                try:
                    with transaction.atomic():
                        record = IdempotencyKey.objects.create(user=request.user, key=key, fingerprint=fingerprint)
                except IntegrityError:
                    return _again(request.user, key, fingerprint)
                response = handler(view, request, *args, **kwargs)
                body = json.loads(JSONRenderer().render(response.data))
                if secret:
                    body[secret] = None
                record.status, record.body = response.status_code, body
                record.save(update_fields=["status", "body"])
                return response

        return wrapper

    return decorate


def _again(user: Any, key: str, fingerprint: str) -> Response:
    record = IdempotencyKey.objects.get(user=user, key=key)
    if record.fingerprint != fingerprint:
        raise KeyReused("This Idempotency-Key was used for another request within the last 24 hours. Use a new key for a new request.")
    return Response(record.body, status=record.status, headers={"Idempotency-Replayed": "true"})
