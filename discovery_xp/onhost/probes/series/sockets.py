"""Connections that are open at a host's service ports, from /proc/net/tcp."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# The kernel walks its whole table of sockets for each reading, some 2 ms: only hosts with a port
# that serves are read, where each connection is seen once, and only the file of a protocol by
# which one of the ports listens.  A port of IPv6 takes clients of IPv4, too.
FILES = ("/proc/net/tcp", "/proc/net/tcp6")
_ESTABLISHED, _LISTENING = b"01", b"0A"


def count(table: bytes, services: Mapping[int, str], state: bytes = _ESTABLISHED) -> dict[str, int]:
    """Return the sockets in a state at these ports of this host, by service."""
    counts = dict.fromkeys(services.values(), 0)
    for line in table.splitlines()[1:]:
        fields = line.split(None, 4)
        if len(fields) < 4 or fields[3] != state:
            continue
        try:
            port = int(fields[1][-4:], 16)
        except ValueError:
            continue
        if port in services:
            counts[services[port]] += 1
    return counts


class Connections:
    """The connections at a host's ports; `services` is the name of what serves at each."""

    def __init__(self, services: Mapping[int, str]) -> None:
        self.services = services
        self.files = [path for path in FILES if self._listens(path)] if services else []

    def _listens(self, path: str) -> bool:
        return any(count(_table(path), self.services, _LISTENING).values())

    def readings(self) -> Iterator[tuple[str, str, float]]:
        """Yield what is read now: subject, metric, value."""
        total = dict.fromkeys(self.services.values(), 0)
        for path in self.files:
            for service, number in count(_table(path), self.services).items():
                total[service] += number
        for service, number in total.items():
            yield service, "connections", float(number)


def _table(path: str) -> bytes:
    """Return the kernel's table of sockets; nothing where the kernel has no such protocol."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
