"""Binds every port of a VM at once, without agents: for VMs that exist in name only."""

from __future__ import annotations

from typing import Any

from neutron_lib.api.definitions import portbindings
from neutron_lib.plugins.ml2 import api


class AgentlessDriver(api.MechanismDriver):
    """Accepts the first segment there is, on any host, and calls the port active."""

    def initialize(self) -> None:
        """Set up nothing."""

    @property
    def connectivity(self) -> str:
        """Return what the ports could carry."""
        return str(portbindings.CONNECTIVITY_L2)

    def bind_port(self, context: Any) -> None:
        """Bind to the first segment; the fake virt driver plugs nothing in."""
        for segment in context.segments_to_bind:
            context.set_binding(segment[api.ID], portbindings.VIF_TYPE_OVS, {}, status="ACTIVE")
            return
