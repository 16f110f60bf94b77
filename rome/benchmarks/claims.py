"""Several Placements, each a process of its own, that claim the same providers at once.

None may answer HTTP 500: of two that raise a provider's generation at the same moment the slower
one has to hear of it at its statement, and begins anew.

    python -m benchmarks.claims [--processes 3] [--claims 40] [--delay 10]
"""

from __future__ import annotations

import collections
import sys
import uuid

from . import backends, tables
from .backends import Failed, Python, Worker, say
from .trips import rome


def run(python: Python, processes: int, count: int, delay: float, providers: int) -> int:
    """Print what requests were answered; 1: some with an error, or units are missing."""
    names = [str(uuid.uuid4()) for _ in range(providers)]
    with rome() as backend:
        workers = [Worker(python, "claims_worker", backend.urls(delay)) for _ in range(processes)]
        try:
            workers[0].ask("create", providers=names)
            for worker in workers:
                worker.ask("claim", providers=names, count=3)  # one after the other: all are up
            backend.proxy.delay(delay)
            for worker in workers:
                worker.tell("claim", providers=names, count=count)
            answers = [worker.answer() for worker in workers]
            backend.proxy.delay(0)
            used = sum(workers[0].ask("usage", provider=name)["usages"]["VCPU"] for name in names)
        finally:
            for worker in workers:
                worker.close()
    statuses: collections.Counter[str] = collections.Counter()
    for answer in answers:
        statuses.update(answer["statuses"])
        for words in answer["words"]:
            say(words)
    granted = statuses["204"] + 3 * processes
    seconds = max(answer["seconds"] for answer in answers)
    sys.stdout.write(
        f"{processes} Placements, {providers} providers, {delay:g} ms: "
        + ", ".join(f"{times} x {status}" for status, times in sorted(statuses.items()))
        + f"; {used} units of VCPU are used, {granted} were granted; {seconds:.1f} s\n"
    )
    return int(used != granted or any(status >= "500" for status in statuses))


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--claims", type=int, default=40, help="of each process")
    parser.add_argument("--providers", type=int, default=1)
    parser.add_argument("--delay", type=float, default=10.0, help="ms of a round trip")
    options = parser.parse_args()
    try:
        with backends.environment(options.python) as python:
            return run(python, options.processes, options.claims, options.delay, options.providers)
    except (Failed, *tables.KNOWN) as error:
        say(f"claims: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
