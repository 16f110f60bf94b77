"""The suite from the command line: `python -m tests.compliance [URL ...]`."""

from __future__ import annotations

import sys

from tests.compliance.runner import run
from tests.servers import RedisServer


def main(urls: list[str]) -> int:
    """1 if a test fails, or none passes."""
    if urls:
        return max([_report(url) for url in urls])
    server = RedisServer()
    server.start()
    try:
        ours = f"rome+redis://127.0.0.1:{server.port}/compliance"
        return max([_report("rome+memory:///compliance"), _report(ours)])
    finally:
        server.stop()


def _report(url: str) -> int:
    outcome = run(url)
    if outcome.failed or not outcome.passed:
        sys.stdout.write(outcome.output)
    sys.stdout.write(
        f"{url}: {outcome.passed} passed, {outcome.skipped} skipped, {outcome.failed} failed\n"
    )
    return int(bool(outcome.failed) or not outcome.passed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
