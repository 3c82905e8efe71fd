"""Approvals and notifications: look, answer, mark as read."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from portal.domain import selectors, services
from portal.domain.errors import NotFound, ValidationError
from portal.domain.models import Approval, Notification, User

from ..idempotency import idempotent
from ..pagination import NewestFirst
from ..serializers import ApprovalSerializer, ApproveSerializer, NotificationSerializer, ReadAnswerSerializer, ReadSerializer, RefuseSerializer
from .base import ApiView, ListView
from .environments import flag


class Approvals(ListView):
    """Questions about environments that you may see, newest first; `decidable=true`: those that you may answer."""

    serializer_class = ApprovalSerializer
    pagination_class = NewestFirst
    queryset = Approval.objects.none()

    @extend_schema(
        operation_id="approvals_list",
        parameters=[
            OpenApiParameter("status", str, enum=Approval.Status.values),
            OpenApiParameter("decidable", bool, description="Only pending ones that you may answer"),
        ],
    )
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        user, status = self.request.user, self.request.query_params.get("status")
        if status is not None and status not in Approval.Status.values:
            raise ValidationError.field("status", f"Must be one of {', '.join(Approval.Status.values)}.")
        rows = selectors.approvals_decidable_by(user) if flag(self.request, "decidable") else selectors.approvals_visible_to(user)
        return rows.filter(status=status) if status else rows


def _approval(user: User, approval_id: int) -> Approval:
    approval = selectors.approvals_visible_to(user).filter(pk=approval_id).first()
    if approval is None:
        raise NotFound("There is no such approval.")
    return approval


class ApprovalDetail(ApiView):
    @extend_schema(responses=ApprovalSerializer, operation_id="approvals_retrieve")
    def get(self, request: Any, approval_id: int) -> Response:
        """One question, with its answer when there is one."""
        return Response(ApprovalSerializer(_approval(request.user, approval_id)).data)


class Approve(ApiView):
    @extend_schema(request=ApproveSerializer, responses=ApprovalSerializer)
    @idempotent()
    def post(self, request: Any, approval_id: int) -> Response:
        """Approve as asked or with less. Its quota is reserved now, so a full quota refuses this and leaves it pending."""
        _approval(request.user, approval_id)
        form = ApproveSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        services.approval_grant(actor=request.user, approval_id=approval_id, **form.validated_data)
        return Response(ApprovalSerializer(_approval(request.user, approval_id)).data)


class Refuse(ApiView):
    @extend_schema(request=RefuseSerializer, responses=ApprovalSerializer)
    @idempotent()
    def post(self, request: Any, approval_id: int) -> Response:
        """Refuse with a reason. The environment ends as failed, and may be asked for again."""
        _approval(request.user, approval_id)
        form = RefuseSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        services.approval_refuse(actor=request.user, approval_id=approval_id, note=form.validated_data["note"])
        return Response(ApprovalSerializer(_approval(request.user, approval_id)).data)


class Notifications(ListView):
    """Yours, newest first."""

    serializer_class = NotificationSerializer
    pagination_class = NewestFirst
    queryset = Notification.objects.none()

    @extend_schema(operation_id="notifications_list", parameters=[OpenApiParameter("unread", bool, description="Only those not read yet")])
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    def get_queryset(self) -> Any:
        return selectors.notifications_of(self.request.user, unread=flag(self.request, "unread"))


class NotificationsRead(ApiView):
    @extend_schema(request=ReadSerializer, responses=ReadAnswerSerializer)
    @idempotent()
    def post(self, request: Any) -> Response:
        """Mark as read: those of `ids`, or all. Those of others are left alone."""
        form = ReadSerializer(data=request.data)
        form.is_valid(raise_exception=True)
        return Response({"read": services.notifications_read(actor=request.user, ids=form.validated_data.get("ids"))})
