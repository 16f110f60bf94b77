"""The wheels of an environment on their way: the master serves them, the others fetch them."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import tarfile
import time
import urllib.parse
import urllib.request

from .environment import PYTHON
from .held import Held
from .process import Failure

UNIT = "discovery-xp-wheels"
SERVER_STARTS_S = 20
# No proxy is asked for what is next door.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def serve(folder: str, url: str, host: Held) -> None:
    """Offer what is in folder/served at `url`, by a unit that ends with the run's time."""
    stop(host)
    place = urllib.parse.urlsplit(url)
    try:
        socket.create_server((str(place.hostname), place.port or 80)).close()
    except OSError as error:
        words = os.strerror(error.errno or 0)
        raise Failure(f"the master can't serve {url}: {words}") from None
    done = host.run(
        ["systemd-run", f"--unit={UNIT}", "--quiet", "--collect",
         f"--property=RuntimeMaxSec={host.timeout_s:g}",
         PYTHON, "-m", "http.server", "--bind", str(place.hostname),
         "--directory", f"{folder}/served", str(place.port)]
    )  # fmt: skip
    if done.returncode:
        raise Failure(f"systemd-run: {done.stderr.strip()}")
    latest = time.monotonic() + SERVER_STARTS_S
    while not _is_served(folder, url):
        if time.monotonic() > latest:
            stop(host)
            raise Failure(f"{url} isn't served: 'journalctl --unit={UNIT}' on the master says why")
        time.sleep(0.2)


def _is_served(folder: str, url: str) -> bool:
    """True when the archive is there, and whole."""
    request = urllib.request.Request(url, method="HEAD")
    size = os.path.getsize(f"{folder}/served/{os.path.basename(url)}")
    try:
        with _OPENER.open(request, timeout=5) as answer:
            return int(answer.headers["Content-Length"] or 0) == size
    except (OSError, http.client.HTTPException):
        return False


def stop(host: Held) -> None:
    """Serve no longer."""
    host.run(["systemctl", "stop", f"{UNIT}.service"])
    host.run(["systemctl", "reset-failed", f"{UNIT}.service"])


def fetch(url: str, checksum: str, folder: str) -> None:
    """Unpack the archive at `url`, whose SHA-1 is `checksum`, into a folder that isn't there."""
    archive = f"{folder}/archive"
    digest = hashlib.sha1()
    try:
        os.makedirs(folder)
        with _OPENER.open(url, timeout=60) as answer, open(archive, "wb") as file:
            while block := answer.read(2**20):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != checksum:
            raise Failure(f"{url} didn't arrive as it was sent")
        with tarfile.open(archive) as opened:
            opened.extractall(folder)
        os.unlink(archive)
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"the wheels can't be had from {url}: {error}") from None
