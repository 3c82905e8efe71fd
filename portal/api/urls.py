"""Addresses of the REST API, without trailing slashes. `environments/{id}/logs` is in portal.live.urls, which streams."""

from __future__ import annotations

from django.urls import path, re_path
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

from .problems import problem
from .views import account, catalogue, data, decisions, environments, queue

app_name = "api"


class Nothing(APIView):
    """What is at no address of the API is told as a problem document too."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    schema = None

    def initial(self, request: object, *args: object, **kwargs: object) -> None:
        """Answer before methods are looked at: there is nothing here for any of them."""

    def http_method_not_allowed(self, request: object, *args: object, **kwargs: object) -> Response:
        return problem(404, "not_found", "There is nothing at this address. The addresses are listed at /api/v1/docs.")


urlpatterns = [
    path("me", account.Me.as_view(), name="me"),
    path("templates", catalogue.Templates.as_view(), name="templates"),
    path("templates/<slug:slug>", catalogue.TemplateDetail.as_view(), name="template"),
    path("flavors", catalogue.Flavors.as_view(), name="flavors"),
    path("accelerators", catalogue.Accelerators.as_view(), name="accelerators"),
    path("environments", environments.Environments.as_view(), name="environments"),
    path("environments/<uuid:environment_id>", environments.EnvironmentDetail.as_view(), name="environment"),
    path("environments/<uuid:environment_id>/start", environments.Start.as_view(), name="environment-start"),
    path("environments/<uuid:environment_id>/stop", environments.Stop.as_view(), name="environment-stop"),
    path("environments/<uuid:environment_id>/retry", environments.Retry.as_view(), name="environment-retry"),
    path("environments/<uuid:environment_id>/keep", environments.Keep.as_view(), name="environment-keep"),
    path("environments/<uuid:environment_id>/in-use", environments.InUse.as_view(), name="environment-in-use"),
    path("environments/<uuid:environment_id>/events", environments.Events.as_view(), name="environment-events"),
    path("storages", data.Storages.as_view(), name="storages"),
    path("datasets", data.Artifacts.as_view(kind="dataset"), name="datasets"),
    path("datasets/<str:name>", data.ArtifactDetail.as_view(kind="dataset"), name="dataset"),
    path("datasets/<str:name>/versions", data.Versions.as_view(kind="dataset"), name="dataset-versions"),
    path("datasets/<str:name>/versions/<int:number>", data.VersionDetail.as_view(kind="dataset"), name="dataset-version"),
    path("models", data.Artifacts.as_view(kind="model"), name="models"),
    path("models/<str:name>", data.ArtifactDetail.as_view(kind="model"), name="model"),
    path("models/<str:name>/versions", data.Versions.as_view(kind="model"), name="model-versions"),
    path("models/<str:name>/versions/<int:number>", data.VersionDetail.as_view(kind="model"), name="model-version"),
    path("approvals", decisions.Approvals.as_view(), name="approvals"),
    path("approvals/<int:approval_id>", decisions.ApprovalDetail.as_view(), name="approval"),
    path("approvals/<int:approval_id>/approve", decisions.Approve.as_view(), name="approval-approve"),
    path("approvals/<int:approval_id>/refuse", decisions.Refuse.as_view(), name="approval-refuse"),
    path("queue", queue.Queue.as_view(), name="queue"),
    path("priorities", queue.Priorities.as_view(), name="priorities"),
    path("usage", queue.Usage.as_view(), name="usage"),
    path("notifications", decisions.Notifications.as_view(), name="notifications"),
    path("notifications/read", decisions.NotificationsRead.as_view(), name="notifications-read"),
    path("quotas", account.Quotas.as_view(), name="quotas"),
    path("volumes", account.Volumes.as_view(), name="volumes"),
    path("volumes/<uuid:volume_id>", account.VolumeDetail.as_view(), name="volume"),
    path("tokens", account.Tokens.as_view(), name="tokens"),
    path("tokens/<uuid:token_id>", account.TokenDetail.as_view(), name="token"),
    path("openapi.json", SpectacularJSONAPIView.as_view(), name="openapi"),
    path("docs", SpectacularSwaggerSplitView.as_view(url_name="api:openapi"), name="docs"),
    re_path(r"^[\s\S]*$", Nothing.as_view()),  # newlines too,
]
