"""Values that their types would refuse: what comes after those is tested by itself."""

from __future__ import annotations

from discovery_xp.inputs.topology import SshHost


def ssh_host(
    address: str = "192.0.2.1",
    user: str = "root",
    port: int = 22,
    key: str | None = None,
    jump: str | None = None,
) -> SshHost:
    """An `SshHost` that nobody has looked at."""
    made = object.__new__(SshHost)
    for name, value in (
        ("address", address), ("user", user), ("port", port), ("key", key), ("jump", jump),
    ):  # fmt: skip
        object.__setattr__(made, name, value)
    return made
