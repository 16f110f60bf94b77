"""Where an operation's time goes: its statements with their round trips, and a profile.

python -m benchmarks.explain PATTERN [--profile]
"""

from __future__ import annotations

import re
import sys
from typing import Any

from . import backends, tables
from .backends import MARIADB, ROME, Backend, Failed, Python, Worker, say

_RUNS = 100
_WIDTH = 300


def explain(running: dict[str, Backend], python: Python, pattern: str, *, profile: bool) -> str:
    """All that is known of the operations whose names match."""
    straight = {name: Worker(python, "worker", it.urls(None)) for name, it in running.items()}
    delayed = {name: Worker(python, "worker", it.urls(1)) for name, it in running.items()}
    lines = []
    try:
        for name, worker in straight.items():
            say(f"{name}: schemas and a cloud")
            worker.ask("schemas")
            worker.ask("fill")
        for operation in straight[ROME].ask("operations"):
            name = operation["name"]
            if not re.search(pattern, name):
                continue
            lines.append(f"\n=== {name}\n")
            for side in (MARIADB, ROME):
                lines.append(f"--- {side}: ms, turns, statement (no delay, through the proxy)\n")
                try:
                    asked = delayed[side].ask(
                        "statements", name=name, control=running[side].proxy.control
                    )
                except Failed as error:
                    lines.append(f"fails: {error}\n")
                    continue
                lines.append(told(asked))
            if profile:
                count = _RUNS // 5 if operation["heavy"] else _RUNS
                lines.append(f"--- {ROME}: profile of {count} runs, not through the proxy\n")
                try:
                    straight[ROME].ask("profile", name=name, count=2)
                    lines.append(straight[ROME].ask("profile", name=name, count=count))
                except Failed as error:
                    lines.append(f"fails: {error}\n")
    finally:
        for worker in (*straight.values(), *delayed.values()):
            worker.close()
    return "".join(lines)


def told(segments: list[list[Any]]) -> str:
    """A line for each: milliseconds, turns, words."""
    lines = []
    for words, ms, turns in [
        *segments,
        ["in all", *(sum(it[place] for it in segments) for place in (1, 2))],
    ]:
        indent = " " * (len(words) - len(words.lstrip()))
        text = re.sub(r"\s+", " ", words).strip()
        if len(text) > _WIDTH:
            half = _WIDTH // 2
            text = f"{text[:half]} ... {text[-half:]}"
        lines.append(f"{ms:8.2f} {turns:3d}  {indent}{text}\n")
    return "".join(lines)


def main() -> int:
    """The command."""
    parser = backends.parser(__doc__)
    parser.add_argument("pattern", help="a regular expression for operations' names")
    parser.add_argument("--profile", action="store_true", help="of ROME's process")
    options = parser.parse_args()
    try:
        tables.pattern(options.pattern)
        with backends.environment(options.python) as python, backends.running() as running:
            text = explain(running, python, options.pattern, profile=options.profile)
    except (Failed, *tables.KNOWN) as error:
        say(f"explain: {error}")
        return 2
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
