"""Names of oslo.messaging as NATS's subjects.  Pure.

A subject is tokens with dots between; "*", ">", blanks and control characters mean something else
or may not be there.  Whatever may stand in an exchange, a topic or a server's name is escaped, so
that two different names are two different tokens: "%" and two hexadecimal digits for each byte
that isn't a letter, a digit, "-" or "_".
"""

from __future__ import annotations

import re

ROOT = "oslo"
# All workers of a service share it: a message goes to one of them.
GROUP = "w"
_PLAIN = re.compile(rb"[A-Za-z0-9_-]+")
_OTHER = re.compile(rb"[^A-Za-z0-9_-]")


def token(name: str) -> str:
    """Return a name as one token; an empty one is "%"."""
    data = name.encode()
    if _PLAIN.fullmatch(data):
        return name
    return _OTHER.sub(lambda found: b"%%%02x" % found[0][0], data).decode() or "%"


def topic(exchange: str, name: str) -> str:
    """Return the subject of what goes to one of a topic's servers."""
    return f"{ROOT}.topic.{token(exchange)}.{token(name)}"


def server(exchange: str, name: str, host: str) -> str:
    """Return the subject of what goes to one server of a topic."""
    return f"{ROOT}.server.{token(exchange)}.{token(name)}.{token(host)}"


def fanout(exchange: str, name: str) -> str:
    """Return the subject of what goes to all servers of a topic."""
    return f"{ROOT}.fanout.{token(exchange)}.{token(name)}"


def probe(exchange: str, name: str) -> str:
    """Return the subject on which all workers of a topic are asked what they know."""
    return f"{ROOT}.probe.{token(exchange)}.{token(name)}"


def instance(exchange: str, name: str, worker: str) -> str:
    """Return the subject of one worker of a topic."""
    return f"{ROOT}.worker.{token(exchange)}.{token(name)}.{token(worker)}"


def notification(exchange: str, name: str) -> str:
    """Return the subject of a topic's notifications."""
    return f"{ROOT}.notify.{token(exchange)}.{token(name)}"


def inbox(session: str) -> str:
    """Return what subjects of answers to a client begin with; one token more names the request."""
    return f"_INBOX.{session}"
