"""Whether a port of this host answers."""

from __future__ import annotations

import socket


def answers(port: int, speaks_http: bool, timeout_s: float = 5) -> bool:
    """Tell whether a port takes connections and, where it should, speaks HTTP.

    gunicorn listens before its application is loaded: only an answer says that it is.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            if not speaks_http:
                return True
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return connection.recv(16).startswith(b"HTTP/")
    except OSError:
        return False
