"""Where round trips go: of a boot, and of a claim of allocations, statement by statement.

It needs no MariaDB: ROME's Redis alone, with a proxy before it that counts the turns.

    python -m benchmarks.trips [--boots 3] [--url-options prefetch=off] [--save [NAME]]

With `--url-options table_lease=2` the warm-up has to last half a minute, until tables count as
seldom written: `--warm-up 10 --pause 4`.
"""

from __future__ import annotations

import collections
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import backends, proxy, servers, tables
from .backends import ROME, Backend, Failed, Python, Worker, say
from .boot import WARM_UP
from .explain import told

_DELAY = 2.0  # ms: so that the turns are told apart
_CLAIMS = "PUT /allocations (a new claim)"
_REPLACED = "PUT /allocations (replaced)"
_INSERTS = (
    "insert one row (certificate_create)",
    "block_device_mapping_create",
    "action_start",
    "RequestSpec.create",
    "InstanceMapping.create",
)
_RUNS = 6  # of an operation before it is counted


@contextmanager
def rome() -> Iterator[Backend]:
    """ROME's server alone."""
    with servers.redis() as server:
        handle = proxy.Handle(server.port)
        try:
            yield Backend(ROME, server, handle, "rome+redis://127.0.0.1:{port}/{database}")
        finally:
            handle.close()


def boots(
    backend: Backend, python: Python, count: int, options: str, warm_up: int, pause: float
) -> list[list[list[Any]]]:
    """What each of some boots asks, after `warm_up` others with pauses (s) between them."""
    worker = Worker(python, "boot_worker", backend.urls(_DELAY, options))
    try:
        worker.ask("start")
        backend.proxy.delay(_DELAY)
        for _ in range(warm_up):
            worker.ask("boot")
            time.sleep(pause)
            say("one more boot to warm up")
        return [worker.ask("trace", control=backend.proxy.control) for _ in range(count)]
    finally:
        backend.proxy.delay(0)
        worker.close()


def operations(
    backend: Backend, python: Python, names: tuple[str, ...], options: str
) -> dict[str, list[list[Any]]]:
    """What operations of the workload ask, by name."""
    worker = Worker(python, "worker", backend.urls(_DELAY, options))
    try:
        worker.ask("schemas")
        worker.ask("fill")
        backend.proxy.delay(_DELAY)
        found = {}
        for name in names:
            for _ in range(_RUNS):
                found[name] = worker.ask("statements", name=name, control=backend.proxy.control)
        return found
    finally:
        backend.proxy.delay(0)
        worker.close()


def turns(segments: list[list[Any]]) -> int:
    """Round trips of a trace."""
    return sum(turns for _, _, turns in segments)


def transactions(segments: list[list[Any]]) -> list[tuple[int, str]]:
    """Round trips of each transaction of a trace, and what it is: its statements, shortened."""
    found: list[tuple[int, str]] = []
    count, words = 0, []
    for text, _, own in segments:
        count += own
        if text.startswith((" ", "(")):
            continue
        words.append(_short(text) + f" {own}")
        if text in ("COMMIT", "ROLLBACK"):
            found.append((count, ", ".join(words)))
            count, words = 0, []
    return found


def _short(text: str) -> str:
    words = text.split()
    if words[0] in ("INSERT", "DELETE"):
        return f"{words[0]} {words[2]}"
    if words[0] == "UPDATE":
        return f"UPDATE {words[1]}"
    if words[0] == "SELECT" and "FROM" in words:
        return f"SELECT {words[words.index('FROM') + 1].strip('(')}"
    return words[0]


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--boots", type=int, default=3)
    parser.add_argument("--url-options", default="", help="of ROME's URLs")
    parser.add_argument(
        "--save", nargs="?", const="trips", help="write NAME.json, NAME.txt (default: trips)"
    )
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="boots before those counted")
    parser.add_argument("--pause", type=float, default=0, help="seconds between these")
    parser.add_argument("--what", choices=("all", "boot", "operations"), default="all")
    options = parser.parse_args()
    more = f"?{options.url_options}" if options.url_options else ""
    traces: dict[str, list[list[Any]]] = {}
    counts: dict[str, float] = {}
    try:
        with backends.environment(options.python) as python:
            if options.what != "boot":
                with rome() as backend:
                    traces = operations(backend, python, (_CLAIMS, _REPLACED, *_INSERTS), more)
            counts = {name: turns(trace) for name, trace in traces.items()}
            if options.what != "operations":
                with rome() as backend:
                    several = boots(
                        backend, python, options.boots, more, options.warm_up, options.pause
                    )
                traces["a boot"] = several[-1]
                counts["a boot"] = statistics.mean(map(turns, several))
    except (Failed, *tables.KNOWN) as error:
        say(f"trips: {error}")
        return 2
    text = "".join(f"=== {name}\n\n{told(trace)}\n" for name, trace in traces.items())
    for name, trace in traces.items():
        kinds = collections.Counter(transactions(trace))
        lines = [f"{own:4d} x{times:3d}  {words}\n" for (own, words), times in kinds.items()]
        sys.stdout.write(f"--- {name}: {counts[name]:.1f}\n{''.join(lines)}\n")
    if options.save:
        (options.results / f"{options.save}.txt").write_text(text)
        (options.results / f"{options.save}.json").write_text(json.dumps(counts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
