"""On what and with what it was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import backends, servers

_PACKAGES = (
    "nova",
    "openstack-placement",
    "oslo.db",
    "sqlalchemy",
    "pymysql",
    "sqlalchemy-rome",
    "apsw",
    "redis",
    "hiredis",
    "msgpack",
)
_SCRIPT = """
import importlib.metadata, json, platform, sys
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


# Servers: their programs, and how they are set.
_SERVERS = {
    "MariaDB": ("mariadbd", servers.MARIADB_SETTINGS),
    "Redis": ("redis-server", servers.REDIS_SETTINGS),
    "etcd": ("etcd", servers.ETCD_SETTINGS),
}


def describe(
    python: backends.Python, servers_used: Sequence[str] = ("MariaDB", "Redis")
) -> dict[str, Any]:
    """The machine and the versions."""
    asked = subprocess.run(
        [python.executable, "-c", _SCRIPT, *_PACKAGES],
        env={**os.environ, **python.variables},
        capture_output=True,
        text=True,
    )
    if asked.returncode:
        raise backends.Failed(
            f"{python.executable}: {(asked.stderr.strip().splitlines() or ['?'])[-1]}"
        )
    return {
        "commit": python.commit,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": platform.release(),
        "versions": {
            **{name: servers.version(_SERVERS[name][0]) for name in servers_used},
            **json.loads(asked.stdout),
        },
        "settings": {name: _SERVERS[name][1] for name in servers_used},
    }


def in_words(description: dict[str, Any]) -> str:
    """Two lines of Markdown."""
    versions = ", ".join(f"{name} {it}" for name, it in description["versions"].items())
    settings = "; ".join(f"{name}: {it}" for name, it in description["settings"].items())
    commit = f"; commit {description['commit']}" if description["commit"] else ""
    return (
        f"{description['cores']} cores of {description['processor']}, "
        f"{description['memory_gib']} GiB, Linux {description['kernel']}; {versions}{commit}.  "
        f"{settings}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
