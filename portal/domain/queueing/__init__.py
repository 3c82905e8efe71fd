"""The queue's arithmetic: pure, no Django, no clock. `decide(picture)` is one look at the whole queue."""

from .decision import decide
from .model import Admitted, Decision, Held, Load, Picture, Placement, Pods, Seats, Standing, Topology, Waiting
from .promises import with_promises
from .room import Room, load_of

__all__ = [
    "Admitted",
    "Decision",
    "Held",
    "Load",
    "Picture",
    "Placement",
    "Pods",
    "Room",
    "Seats",
    "Standing",
    "Topology",
    "Waiting",
    "decide",
    "load_of",
    "with_promises",
]
