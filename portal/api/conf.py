"""Settings of the REST API."""

from __future__ import annotations

REST_FRAMEWORK: dict[str, object] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["portal.api.authentication.BearerAuthentication", "rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["portal.api.permissions.SignedInWithScope"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "portal.api.negotiation.AlwaysJson",
    "DEFAULT_PAGINATION_CLASS": "portal.api.pagination.NewestFirst",
    "DEFAULT_SCHEMA_CLASS": "portal.api.schema.ProblemSchema",
    "DEFAULT_METADATA_CLASS": None,  # OPTIONS says nothing that the OpenAPI document does not
    "EXCEPTION_HANDLER": "portal.api.problems.exception_handler",
    "NON_FIELD_ERRORS_KEY": "body",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS: dict[str, object] = {
    "TITLE": "Atelier",
    "DESCRIPTION": (
        "Notebooks and mini clusters on Kubernetes: ask for them, watch them, take them down. Send a token as `Authorization: Bearer atl_...`. "
        "Errors are problem documents (RFC 9457); lists have `results` and `next`. A POST with an `Idempotency-Key` may be repeated for 24 hours "
        "and has its effect once."
    ),
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {"KindEnum": "portal.domain.models.Template.Kind", "EventKindEnum": "portal.domain.models.Event.Kind"},
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "portal.api.schema_logs.add_logs"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"persistAuthorization": False, "displayRequestDuration": True},
}
