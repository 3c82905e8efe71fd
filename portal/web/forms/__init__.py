"""Forms of the pages. They only read what was typed; the services decide whether it is allowed."""

from .account import SettingsForm, TokenForm
from .base import Styled, duration_title, hour_choices
from .decision import DecisionForm
from .launch import LaunchForm
from .schedule import ScheduleForm
from .verbs import ExtendForm, RenameForm, ScaleForm

__all__ = [
    "DecisionForm",
    "ExtendForm",
    "LaunchForm",
    "RenameForm",
    "ScaleForm",
    "ScheduleForm",
    "SettingsForm",
    "Styled",
    "TokenForm",
    "duration_title",
    "hour_choices",
]
