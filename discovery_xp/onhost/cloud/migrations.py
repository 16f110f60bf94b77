"""Databases brought to their newest schemas, side by side: loaded from dumps, or migrated."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .schema_dumps import Dumps, is_empty

Schema = Mapping[str, Any]


class Migrations:
    """Loads or migrates databases, then runs the commands that fill them.

    A schema has a `name`, a `user` and lists of words: `migrations` and, optional, `commands`.
    `dump` is the name under which its dump is kept, if that is another one.
    `is_newest` judges a loaded one by its URL, in any thread.  Loading waits for the disk, so all
    are loaded at once; of commands, as many run at once as there are CPUs.
    """

    def __init__(self, dumps: Dumps, is_newest: Callable[[Schema, str], bool]) -> None:
        self.dumps = dumps
        self._is_newest = is_newest
        self._cpus = threading.Semaphore(os.cpu_count() or 1)

    def bring_up(
        self, schemas: Sequence[Schema], urls: Mapping[str, str], inputs: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Bring up all `schemas`; `inputs` are what the commands of some read from stdin.

        Returns of each its name, duration and failure, if any, and whether it was loaded.
        """

        def one(schema: Schema) -> dict[str, Any]:
            name = schema["name"]
            return self._bring_up(schema, urls[name], inputs.get(name, ""))

        with ThreadPoolExecutor(max_workers=max(1, len(schemas))) as pool:
            return list(pool.map(one, schemas))

    def _bring_up(self, schema: Schema, url: str, given: str) -> dict[str, Any]:
        started = time.monotonic()
        name = schema["name"]
        was_empty = self.dumps.keeps and is_empty(url)
        is_loaded = self.dumps.load(
            schema.get("dump", name), url, lambda: self._is_newest(schema, url)
        )
        failure = ""
        if not is_loaded:
            failure = self._run(schema, schema["migrations"], given)
            if was_empty and not failure:
                self.dumps.keep(name, url)
        return {
            "name": name,
            "failure": failure or self._run(schema, schema.get("commands", ()), given),
            "is_loaded": is_loaded,
            "duration_s": round(time.monotonic() - started, 2),
        }

    def _run(self, schema: Schema, commands: Sequence[Sequence[str]], given: str) -> str:
        """Run commands in order; returns the failure of the first that fails, or nothing."""
        for words in commands:
            with self._cpus:
                done = run_as(schema["user"], words, given)
            if done.returncode:
                lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
                # Warnings may follow what went wrong.
                last = [
                    line.strip() for line in lines if "Error" in line or "[SQL" in line
                ] or lines
                short = [word for word in words if "\n" not in word][:4]
                failure = f"{schema['name']}: '{' '.join(short)}' ended with {done.returncode}: "
                return failure + " / ".join(last[-3:])
        return ""


def run_as(user: str, words: Sequence[str], given: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user, `given` on its stdin."""
    return subprocess.run(
        words, user=user, group=user, extra_groups=[], input=given, capture_output=True, text=True,
        check=False, cwd="/",
    )  # fmt: skip
