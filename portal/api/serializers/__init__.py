"""The JSON of the API, in and out."""

from .account import (
    MeChangeSerializer,
    MeSerializer,
    QuotaSerializer,
    TokenCreateSerializer,
    TokenMadeSerializer,
    TokenPageSerializer,
    TokenSerializer,
    VolumeSerializer,
)
from .catalogue import AcceleratorSerializer, FlavorSerializer, TemplateSerializer
from .decisions import (
    ApprovalSerializer,
    ApproveSerializer,
    NotificationSerializer,
    ReadAnswerSerializer,
    ReadSerializer,
    RefuseSerializer,
)
from .environments import (
    EnvironmentChangeSerializer,
    EnvironmentRequestSerializer,
    EnvironmentSerializer,
    EventPageSerializer,
    EventSerializer,
    PreviewSerializer,
)
from .usage import PriorityPageSerializer, QueuePageSerializer, UsageSerializer

__all__ = [
    "AcceleratorSerializer",
    "ApprovalSerializer",
    "ApproveSerializer",
    "EnvironmentChangeSerializer",
    "EnvironmentRequestSerializer",
    "EnvironmentSerializer",
    "EventPageSerializer",
    "EventSerializer",
    "FlavorSerializer",
    "MeChangeSerializer",
    "MeSerializer",
    "NotificationSerializer",
    "PreviewSerializer",
    "PriorityPageSerializer",
    "QueuePageSerializer",
    "QuotaSerializer",
    "ReadAnswerSerializer",
    "ReadSerializer",
    "RefuseSerializer",
    "TemplateSerializer",
    "TokenCreateSerializer",
    "TokenMadeSerializer",
    "TokenPageSerializer",
    "TokenSerializer",
    "UsageSerializer",
    "VolumeSerializer",
]
