"""Every table of the portal."""

from .approval import Approval, ApprovalRule
from .artifact import Artifact, ArtifactVersion
from .catalogue import Accelerator, Flavor, Network, Priority, Template, TemplateVersion
from .coordination import Mutex, Tick
from .environment import Environment, IdempotencyKey, LogArchive, Volume
from .event import Event
from .exception import PodException
from .node import Node
from .notification import Notification
from .storage import Access, Storage, StorageGrant, StorageSecret, TeamClaim
from .team import Membership, Quota, Team
from .usage import Usage
from .user import ApiToken, User

__all__ = [
    "Accelerator",
    "Access",
    "ApiToken",
    "Approval",
    "ApprovalRule",
    "Artifact",
    "ArtifactVersion",
    "Environment",
    "Event",
    "Flavor",
    "IdempotencyKey",
    "LogArchive",
    "Membership",
    "Mutex",
    "Network",
    "Node",
    "Notification",
    "PodException",
    "Priority",
    "Quota",
    "Storage",
    "StorageGrant",
    "StorageSecret",
    "Team",
    "TeamClaim",
    "Template",
    "TemplateVersion",
    "Tick",
    "Usage",
    "User",
    "Volume",
]
