"""The JSON of the API, in and out."""

from .account import MeSerializer, QuotaSerializer, TokenCreateSerializer, TokenMadeSerializer, TokenPageSerializer, TokenSerializer, VolumeSerializer
from .catalogue import AcceleratorSerializer, FlavorSerializer, TemplateSerializer
from .environments import (
    EnvironmentChangeSerializer,
    EnvironmentRequestSerializer,
    EnvironmentSerializer,
    EventPageSerializer,
    EventSerializer,
    PreviewSerializer,
)

__all__ = [
    "AcceleratorSerializer",
    "EnvironmentChangeSerializer",
    "EnvironmentRequestSerializer",
    "EnvironmentSerializer",
    "EventPageSerializer",
    "EventSerializer",
    "FlavorSerializer",
    "MeSerializer",
    "PreviewSerializer",
    "QuotaSerializer",
    "TemplateSerializer",
    "TokenCreateSerializer",
    "TokenMadeSerializer",
    "TokenPageSerializer",
    "TokenSerializer",
    "VolumeSerializer",
]
