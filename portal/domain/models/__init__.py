"""Every table of the portal."""

from .catalogue import Accelerator, Flavor, Template
from .environment import Environment, IdempotencyKey, LogArchive, Volume
from .event import Event
from .node import Node
from .team import Membership, Quota, Team
from .user import ApiToken, User

__all__ = [
    "Accelerator",
    "ApiToken",
    "Environment",
    "Event",
    "Flavor",
    "IdempotencyKey",
    "LogArchive",
    "Membership",
    "Node",
    "Quota",
    "Team",
    "Template",
    "User",
    "Volume",
]
