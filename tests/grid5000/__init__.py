"""An emulator of Grid'5000's REST API, of the standard library alone.

Modules import each other relatively, so that a project can take the folder under any name.
"""

from .emulator import Emulator
from .faults import Faults
from .jobs import Pace
from .machines import InMemoryMachines, MachineFailed, Machines
from .platform import Clock, ClusterSpec, ManualClock, Platform, RunningClock, User
from .server import Server

__all__ = [
    "Clock",
    "ClusterSpec",
    "Emulator",
    "Faults",
    "InMemoryMachines",
    "MachineFailed",
    "Machines",
    "ManualClock",
    "Pace",
    "Platform",
    "RunningClock",
    "Server",
    "User",
]
