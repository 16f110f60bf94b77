#!/usr/bin/python
"""Software on a host: Debian packages, and a Python environment of locked wheels.

What is there already is left alone.  An environment's stamp names its lock file once all is
there, so one that was left half made is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import http.client
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: software
short_description: Debian packages and a Python environment
options:
  step:
    description: >
      packages installs those that are missing, and says in lacks_environment whether there
      is no environment of this stamp; serve offers folder/served over HTTP, stop ends that;
      install makes the environment; wheel puts one more wheel into it, in place of an earlier
      one; remove removes it and what the other steps left.
    choices: [packages, serve, install, wheel, stop, remove]
    required: true
  place: {description: Where the environment is., type: str}
  program: {description: One that is there in bin/ once all is installed., type: str}
  stamp: {description: What a whole environment's stamp holds., type: str}
  built_for: {description: "[Python, machine] of the wheels, as [cp311, x86_64]", type: list}
  packages: {description: Debian packages that must be installed., type: list}
  folder: {description: For wheels that are served or being installed., type: str}
  url: {description: Where the archive of the wheels is served and fetched., type: str}
  checksum: {description: The archive's SHA-1., type: str}
  wheel: {description: Path of the further wheel., type: str}
  timeout_s: {description: "For all of the step; of serve, the longest run.", type: int}
"""

STAMP = ".lock"
# What a stamp holds until the environment is whole; a folder without a stamp isn't ours.
UNFINISHED = "unfinished"
UNIT = "discovery-xp-wheels"
# Held while the environment is worked on, by the programs that do it as well: a run whose
# other end was killed goes on here for a while.
LOCK = "/run/lock/discovery-xp-environment"
LISTS = "/var/lib/apt/lists"
LISTS_LAST_S = 24 * 3600
SERVER_STARTS_S = 20
TIMED_OUT = (124, 137)  # what `timeout` ends with, after SIGTERM and after SIGKILL
# No proxy is asked for what is next door.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Software:
    """The software of this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.args: dict[str, Any] = module.params
        self.changes: list[str] = []
        self.deadline = time.monotonic() + self.args["timeout_s"]
        self.lock: int | None = None

    # ------------------------------------------------------------ what is there

    def require_python(self) -> None:
        """Fail where the wheels can't be installed."""
        wanted, machine = self.args["built_for"]
        major, minor = sys.version_info[:2]
        if (f"cp{major}{minor}", platform.machine()) != (wanted, machine):
            self.fail(
                f"/usr/bin/python3 is Python {major}.{minor} on {platform.machine()}, but the "
                f"wheels are for Python {wanted[2]}.{wanted[3:]} on {machine}: hosts must run "
                "Debian 12, on a processor of the same kind as this machine's"
            )

    def stamp(self) -> str:
        """What the environment's stamp holds; empty when there is none."""
        try:
            with open(f"{self.args['place']}/{STAMP}", encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def set_stamp(self, text: str) -> None:
        with open(f"{self.args['place']}/{STAMP}", "w", encoding="ascii") as file:
            file.write(f"{text}\n")

    def is_whole(self) -> bool:
        """True when the environment is the wanted one, of this host's Python."""
        major, minor = sys.version_info[:2]
        packages = f"{self.args['place']}/lib/python{major}.{minor}/site-packages"
        return self.stamp() == self.args["stamp"] and os.path.isdir(packages)

    def is_foreign(self) -> bool:
        """True when somebody else keeps something where the environment belongs."""
        place = self.args["place"]
        return os.path.isdir(place) and bool(os.listdir(place)) and not self.stamp()

    def require_place(self) -> None:
        """Fail where making the environment would remove what isn't ours."""
        if self.is_foreign():
            self.fail(f"{self.args['place']} isn't of discovery-xp: move it away")

    def missing_packages(self) -> list[str]:
        """Those that Debian doesn't call installed."""
        wanted = self.args["packages"]
        listed = self.run(
            ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n", *wanted]
        )
        installed = {line.split()[0] for line in listed.stdout.splitlines()
                     if line.endswith(" installed")}  # fmt: skip
        return [package for package in wanted if package not in installed]

    # ------------------------------------------------------------ Debian packages

    def ensure_packages(self) -> None:
        if not shutil.which("apt-get"):
            self.fail("there is no apt-get: hosts must run Debian")
        missing = self.missing_packages()
        if missing and not (self.lists_are_fresh() and self.install_packages(missing) == ""):
            update = self.apt("update")
            complaint = self.install_packages(missing)
            if complaint:
                # A mirror that can't be reached is a warning there, and nothing here.
                also = first_lines(update, ("E:", "W:"), at_most=1)
                self.fail(
                    f"{', '.join(missing)} can't be installed: {complaint}"
                    f"{f' (apt-get update: {also})' if also else ''}"
                )
        self.changes += missing

    def lists_are_fresh(self) -> bool:
        """True when there are lists of packages, fetched not long ago."""
        known = glob.glob(f"{LISTS}/*_Packages*")
        return bool(known) and time.time() - os.stat(LISTS).st_mtime < LISTS_LAST_S

    def install_packages(self, packages: list[str]) -> str:
        """Install them; returns what went wrong, in apt's words, or nothing."""
        self.run(["dpkg", "--force-confold", "--configure", "-a"])  # one was interrupted
        done = self.apt(
            "install", "--yes", "--no-install-recommends",
            "--option=Dpkg::Options::=--force-confdef", "--option=Dpkg::Options::=--force-confold",
            *packages,
        )  # fmt: skip
        left = self.missing_packages()
        if not left:
            return ""
        return first_lines(done, ("E:",), at_most=3) or f"apt-get ended with {done.returncode}"

    def apt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run apt-get; waits while somebody else does."""
        options = ["--quiet", "--option=Acquire::Retries=3", "--option=Dpkg::Use-Pty=0",
                   f"--option=DPkg::Lock::Timeout={max(1, self.left_s())}"]  # fmt: skip
        while True:
            done = self.run(["apt-get", *options, *arguments])
            if "Could not get lock" not in done.stderr or self.left_s() <= 0:
                return done
            time.sleep(2)

    # ------------------------------------------------------------ the wheels

    def serve(self) -> None:
        """Offer what is in folder/served, by a unit that ends by itself in the end."""
        self.stop_unit()
        url, place = self.args["url"], urllib.parse.urlsplit(self.args["url"])
        try:
            socket.create_server((str(place.hostname), place.port or 80)).close()
        except OSError as error:
            self.fail(f"the master can't serve {url}: {os.strerror(error.errno or 0)}")
        done = self.run(
            ["systemd-run", f"--unit={UNIT}", "--quiet", "--collect",
             f"--property=RuntimeMaxSec={self.args['timeout_s']}",
             "/usr/bin/python3", "-m", "http.server", "--bind", str(place.hostname),
             "--directory", f"{self.args['folder']}/served", str(place.port)]
        )  # fmt: skip
        if done.returncode:
            self.fail(f"systemd-run: {done.stderr.strip()}")
        latest = time.monotonic() + SERVER_STARTS_S
        while not self.is_served():
            if time.monotonic() > latest:
                self.stop_unit()
                self.fail(f"{url} isn't served: 'journalctl --unit={UNIT}' on the master says why")
            time.sleep(0.2)
        self.changes.append("wheels served")

    def is_served(self) -> bool:
        """True when the archive is there, and whole."""
        url = self.args["url"]
        asked = urllib.request.Request(url, method="HEAD")
        size = os.path.getsize(f"{self.args['folder']}/served/{os.path.basename(url)}")
        try:
            with OPENER.open(asked, timeout=5) as answer:
                return int(answer.headers["Content-Length"] or 0) == size
        except (OSError, http.client.HTTPException):
            return False

    def stop_unit(self) -> None:
        self.run(["systemctl", "stop", f"{UNIT}.service"])
        self.run(["systemctl", "reset-failed", f"{UNIT}.service"])

    def stop(self) -> None:
        """Serve no longer; nothing is left of the wheels."""
        self.stop_unit()
        remove_folder(self.args["folder"])

    def fetch(self, folder: str) -> None:
        """The archive from the master, unpacked, nothing else in the folder."""
        archive, url = f"{folder}/archive", self.args["url"]
        digest = hashlib.sha1()
        try:
            os.makedirs(folder)
            with OPENER.open(url, timeout=60) as answer, open(archive, "wb") as file:
                while block := answer.read(2**20):
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != self.args["checksum"]:
                self.fail(f"{url} didn't arrive as it was sent")
            with tarfile.open(archive) as opened:
                opened.extractall(folder)
            os.unlink(archive)
        except (OSError, http.client.HTTPException) as error:
            self.fail(f"the wheels can't be had from {url}: {error}")

    def ensure_environment(self) -> None:
        """Make it of the master's wheels, whatever an earlier run left of it."""
        place, folder = self.args["place"], f"{self.args['folder']}/fetched"
        with self.locked():
            if self.is_whole():  # a run that was given up went on to its end
                return
            self.require_place()
            remove_folder(folder)
            self.fetch(folder)
            os.makedirs(place, exist_ok=True)
            self.clear(place)
            self.set_stamp(UNFINISHED)
            self.require(["/usr/bin/python3", "-m", "venv", place], "the environment can't be made")
            # Hashes were checked when the wheels were fetched.  Compiling is half of the
            # work, and pip compiles on one core.
            self.require(
                [f"{place}/bin/pip", "--isolated", "install", "--quiet", "--no-index", "--no-deps",
                 "--no-compile", "--disable-pip-version-check", "--root-user-action=ignore",
                 *sorted(glob.glob(f"{folder}/*.whl"))],
                "the wheels can't be installed",
            )  # fmt: skip
            # Some files are templates of Python; those don't compile.
            self.run([f"{place}/bin/python", "-m", "compileall", "-q", "-j", "0", f"{place}/lib"])
            program = self.args["program"]
            self.require(["test", "-x", f"{place}/bin/{program}"], f"the wheels lack {program}")
            remove_folder(folder)
            with contextlib.suppress(OSError):  # the master still serves what is in it
                os.rmdir(self.args["folder"])
            self.set_stamp(self.args["stamp"])
            self.changes.append(place)

    def ensure_wheel(self) -> None:
        """Install one more wheel; its stamp is in the environment, and goes with it."""
        place, wheel = self.args["place"], self.args["wheel"]
        stamp = f"{place}/.{os.path.basename(wheel).split('-')[0]}"
        with self.locked():
            if os.path.exists(stamp):
                with open(stamp, encoding="ascii") as file:
                    if file.read() == self.args["stamp"]:
                        return
                os.unlink(stamp)
            # Its version is often the same while it is being worked on.
            self.require(
                [f"{place}/bin/pip", "--isolated", "install", "--quiet", "--no-index", "--no-deps",
                 "--force-reinstall", "--disable-pip-version-check", "--root-user-action=ignore",
                 wheel],
                f"{os.path.basename(wheel)} can't be installed",
            )  # fmt: skip
            with open(stamp, "w", encoding="ascii") as file:
                file.write(self.args["stamp"])
            self.changes.append(os.path.basename(wheel))

    def clear(self, place: str) -> None:
        """Empty the environment, its stamp last: that tells whose it is."""
        for name in sorted(os.listdir(place), key=lambda name: name == STAMP):
            path = f"{place}/{name}"
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def remove(self) -> None:
        """All but Debian's packages."""
        place, folder = self.args["place"], self.args["folder"]
        self.stop_unit()
        with self.locked():
            if os.path.isdir(folder):
                remove_folder(folder)
                self.changes.append(folder)
            if os.path.isdir(place) and not self.is_foreign():
                self.clear(place)
                if not os.path.islink(place):
                    os.rmdir(place)
                self.changes.append(place)
        os.unlink(LOCK)

    # ------------------------------------------------------------ means

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this host's software; waits while another run does."""
        self.lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.left_s() <= 0:
                        self.fail("another run still installs software on this host")
                    time.sleep(0.5)
            yield
        finally:
            os.close(self.lock)
            self.lock = None

    def left_s(self) -> int:
        return int(self.deadline - time.monotonic())

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run it and what it starts until the time is up; the caller judges."""
        limited = ["timeout", "--kill-after=20", str(max(1, self.left_s())), *command]
        return subprocess.run(
            limited, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            pass_fds=[self.lock] if self.lock is not None else [],
        )  # fmt: skip

    def require(self, command: list[str], otherwise: str) -> None:
        done = self.run(command)
        if done.returncode == 0:
            return
        if done.returncode in TIMED_OUT:
            self.fail(f"{otherwise} within {self.args['timeout_s']} s")
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")] or said
        self.fail(f"{otherwise}: {' / '.join(errors[-2:])}")

    def fail(self, message: str) -> NoReturn:
        self.module.fail_json(msg=message, changes=self.changes)
        raise AssertionError("fail_json returned")


def remove_folder(folder: str) -> None:
    if os.path.isdir(folder):
        shutil.rmtree(folder)


def first_lines(
    done: subprocess.CompletedProcess[str], marks: tuple[str, ...], at_most: int
) -> str:
    """What apt-get said went wrong, each line once."""
    if done.returncode in TIMED_OUT:
        return "apt-get took too long"
    lines = [line.strip() for line in done.stderr.splitlines() if line.startswith(marks)]
    return " / ".join(list(dict.fromkeys(lines))[:at_most])


def main() -> None:
    """What Ansible calls."""
    module = AnsibleModule(
        argument_spec={
            "step": {
                "choices": ["packages", "serve", "install", "wheel", "stop", "remove"],
                "required": True,
            },
            "place": {"type": "str"},
            "program": {"type": "str"},
            "stamp": {"type": "str"},
            "built_for": {"type": "list", "elements": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "folder": {"type": "str"},
            "url": {"type": "str"},
            "checksum": {"type": "str"},
            "wheel": {"type": "str"},
            "timeout_s": {"type": "int", "default": 300},
        }
    )
    software = Software(module)
    step = module.params["step"]
    lacks_environment = False
    if step == "packages":
        software.require_python()
        software.require_place()
        lacks_environment = not software.is_whole()
        software.ensure_packages()
    elif step == "serve":
        software.serve()
    elif step == "install":
        software.ensure_environment()
    elif step == "wheel":
        software.ensure_wheel()
    elif step == "stop":
        software.stop()
    else:
        software.remove()
    module.exit_json(
        changed=bool(software.changes),
        changes=software.changes,
        lacks_environment=lacks_environment,
    )


if __name__ == "__main__":
    main()
