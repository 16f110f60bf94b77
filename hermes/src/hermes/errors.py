"""What goes wrong below the driver; the driver turns it into oslo.messaging's own exceptions."""

from __future__ import annotations


class HermesError(Exception):
    """Anything that this package raises by itself."""


class ProtocolError(HermesError):
    """The other end said something that no NATS server says."""


class Refused(HermesError):
    """The server doesn't take this client: credentials, permissions, a protocol that is too old."""


class Full(HermesError):
    """A buffer is full, and stayed so until the caller's time was up."""


class Closed(HermesError):
    """The connection was closed by its owner."""
