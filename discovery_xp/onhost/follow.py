"""Hands on what a load adds to its records, and writes the words that it waits for.

Run over ssh, as `python3 -m discovery_xp.onhost.follow FOLDER UNIT OFFSET SECONDS`: the records'
whole lines from an offset on go to stdout, every so many seconds, until the unit's end.  A line
of stdin, as `go 1.5`, says a word that is meant for so many seconds later; its end ends this.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import BinaryIO, TextIO

from .wire import lines

# A unit that was silent for so long may have ended without a line.
ASK_AFTER_S = 5.0


class Follower:
    """Follows the records of a load host's `folder`."""

    def __init__(self, folder: str, unit: str, offset: int, output: BinaryIO) -> None:
        self.folder = folder
        self.unit = unit
        self.offset = offset
        self.output = output
        self.heard = time.monotonic()

    def follow(self, words: TextIO, every_s: float) -> None:
        """Hand lines on until the unit's end, or until nobody listens."""
        while not self.hand_on():
            if time.monotonic() - self.heard > ASK_AFTER_S:
                self.heard = time.monotonic()
                if not self.is_running():
                    if not self.hand_on():
                        self.output.write(lines.end("is gone").encode())
                        self.output.flush()
                    return
            if select.select([words], [], [], every_s)[0]:
                reply = words.readline().split()
                if not reply:
                    return
                self.say(reply[0], float(reply[1]))

    def hand_on(self) -> bool:
        """Write the whole lines that were added; True once the unit's end is among them."""
        try:
            with open(f"{self.folder}/records.jsonl", "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return False
        data = data[: data.rfind(b"\n") + 1]
        if data:
            self.offset += len(data)
            self.heard = time.monotonic()
            self.output.write(data)
            self.output.flush()
        return any(lines.is_end(line) for line in data.splitlines())

    def is_running(self) -> bool:
        """Tell whether systemd has the unit, and it hasn't ended."""
        done = subprocess.run(
            ["systemctl", "is-active", self.unit], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() in ("active", "activating", "deactivating")

    def say(self, word: str, delay_s: float) -> None:
        """Write a word's file, in one step, with the moment that it is meant for."""
        with open(f"{self.folder}/word.new", "w", encoding="ascii") as file:
            file.write(str(time.time() + delay_s))
        os.rename(f"{self.folder}/word.new", f"{self.folder}/{word}")


def main(arguments: Sequence[str]) -> None:
    """Follow what the arguments name."""
    folder, unit, offset, every_s = arguments
    Follower(folder, unit, int(offset), sys.stdout.buffer).follow(sys.stdin, float(every_s))


if __name__ == "__main__":
    main(sys.argv[1:])
