"""What every endpoint shares."""

from __future__ import annotations

from typing import Any

from rest_framework import generics, views


class _NoStore:
    """Answers depend on who asks, and one of them shows a token: nobody on the way may keep them."""

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        response["Cache-Control"] = "no-store"
        return response


class ApiView(_NoStore, views.APIView):
    """One thing, or one verb."""


class ListView(_NoStore, generics.ListAPIView):
    """A list in pages."""


class RetrieveView(_NoStore, generics.RetrieveAPIView):
    """One row."""
