"""The least of a client of Redis: commands, answers, and what a cluster's node says of others."""

from __future__ import annotations

import socket
from typing import Any, BinaryIO

# What a node says of all that it knows, by id; see `read_nodes`.
View = dict[str, dict[str, Any]]


class RedisError(Exception):
    """What a server answers with in place of a result."""


class Connection:
    """The least of a client: a command, its answer."""

    def __init__(self, address: str, port: int, password: str) -> None:
        self.socket = socket.create_connection((address, port), timeout=10)
        self.file: BinaryIO = self.socket.makefile("rb")
        try:
            self.ask("AUTH", password)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it."""
        self.file.close()
        self.socket.close()

    def ask(self, *words: object) -> Any:
        """Return a server's answer: text, a number, a list or None; raises RedisError."""
        parts = [str(word).encode() for word in words]
        sent = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.socket.sendall(b"*%d\r\n%s" % (len(parts), sent))
        return self.read()

    def read(self) -> Any:
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the connection was closed")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise RedisError(rest)
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        size = int(rest)
        if size < 0:
            return None
        if kind == b"$":
            return self.file.read(size + 2)[:-2].decode()
        return [self.read() for _ in range(size)]


def read_nodes(text: str) -> View:
    """Return what CLUSTER NODES says, by id; `slots` holds those that are a master's own."""
    nodes: View = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 8:
            continue
        slots: set[int] = set()
        for word in words[8:]:
            if not word.startswith("["):  # those in brackets are on their way
                first, _, last = word.partition("-")
                slots |= set(range(int(first), int(last or first) + 1))
        flags = set(words[2].split(","))
        nodes[words[0]] = {
            "place": words[1].split("@")[0].split(",")[0],
            "flags": flags,
            "master": None if words[3] == "-" else words[3],
            "slots": slots,
        }
    return nodes
