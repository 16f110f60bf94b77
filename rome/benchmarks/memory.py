"""What an instance takes in the store: Nova's rows of 500 instances, on both.

The rows are those of `instance_create` (15 with the name in EC2's way; the flavor and the
security group's association among them).  Redis: growth of used_memory, and of the keys'
own size as MEMORY USAGE tells it.  MariaDB: growth of data and indexes after OPTIMIZE.

    python -m benchmarks.memory [--instances 500]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from . import backends, machine, servers, tables
from .backends import MARIADB, ROME, Failed, Python, Worker, say

TARGET_KIB = 10


@dataclass
class Memory:
    """KiB of an instance."""

    instances: int
    redis: float
    redis_keys: float
    keys: float  # of Redis, for one instance
    mariadb: float

    @property
    def reached(self) -> bool:
        """Whether ROME takes little enough."""
        return self.redis <= TARGET_KIB


def run(python: Python, results: Path, instances: int = 500) -> Memory:
    """Measure, and write memory.md and memory.json."""
    described = machine.describe(python)
    with backends.running() as running:
        sizes = {}
        for name in (MARIADB, ROME):
            say(f"{name}: {instances} instances")
            backend = running[name]
            worker = Worker(python, "worker", backend.urls(None))
            size = mariadb_size if name == MARIADB else redis_size
            try:
                worker.ask("schemas")
                worker.ask("fill_instances", count=1)  # what is made once
                before = size(python, backend.server.port)
                worker.ask("fill_instances", count=instances)
                after = size(python, backend.server.port)
            finally:
                worker.close()
            sizes[name] = [
                (late - early) / instances for early, late in zip(before, after, strict=True)
            ]
    used, keys_size, keys = sizes[ROME]
    memory = Memory(
        instances,
        round(used / 1024, 2),
        round(keys_size / 1024, 2),
        round(keys, 2),
        round(sizes[MARIADB][0] / 1024, 2),
    )
    text = f"# Memory\n\n{machine.in_words(described)}\n\n{table(memory)}"
    tables.write(results, "memory", text, {**described, "memory": asdict(memory)})
    return memory


def table(memory: Memory) -> str:
    """In Markdown."""
    return tables.markdown(
        ["an instance of 15 rows", "KiB", "target", "reached"],
        [
            [
                "Redis: growth of used_memory",
                f"{memory.redis:.2f}",
                f"≤ {TARGET_KIB}",
                tables.verdict(memory.reached),
            ],
            [
                f"Redis: its keys (about {memory.keys:g}), by MEMORY USAGE",
                f"{memory.redis_keys:.2f}",
                "",
                "",
            ],
            ["MariaDB: data and indexes", f"{memory.mariadb:.2f}", "", ""],
        ],
    )


_REDIS = """
import json, sys, redis
client = redis.Redis(port=int(sys.argv[1]))
keys = list(client.scan_iter(count=1000))
with client.pipeline(transaction=False) as pipe:
    for key in keys:
        pipe.memory_usage(key, samples=0)
    sizes = pipe.execute()
print(json.dumps([client.info("memory")["used_memory"], sum(filter(None, sizes)), len(keys)]))
"""


def redis_size(python: Python, port: int) -> list[float]:
    """used_memory, the sum of MEMORY USAGE, and how many keys."""
    done = subprocess.run(
        [python.executable, "-c", _REDIS, str(port)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **python.variables},
    )
    found: list[float] = json.loads(done.stdout)
    return found


def mariadb_size(_python: Python, port: int) -> list[float]:
    """Bytes of data and indexes of Nova's database."""
    names = servers.ask_mariadb(
        port,
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'nova' AND table_rows > 0",
    )
    servers.ask_mariadb(port, f"OPTIMIZE TABLE {', '.join(f'nova.{name}' for name in names)}")
    (size,) = servers.ask_mariadb(
        port,
        "SELECT sum(data_length + index_length) FROM information_schema.tables "
        "WHERE table_schema = 'nova'",
    )
    return [float(size)]


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--instances", type=int, default=500)
    options = parser.parse_args()
    try:
        with backends.environment(options.python) as python:
            memory = run(python, options.results, options.instances)
    except (Failed, *tables.KNOWN) as error:
        say(f"memory: {error}")
        return 2
    sys.stdout.write(table(memory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
