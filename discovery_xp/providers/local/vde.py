"""Links between emulated sites by VDE, in user space: for kernels without sch_netem.

For each pair of sites that has something to impose:

    site A's gateway --TAP-- vde_plug2tap = wirefilter = vde_plug2tap --TAP-- site B's gateway

and a route through it at both ends.  Sites meet at layer 3, so that any mesh of
pairs is free of loops, and each direction has values of its own.  Pairs with
nothing to impose stay on the kernel's path over the backbone.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from discovery_xp.errors import Failed
from discovery_xp.hosts import Reading
from discovery_xp.plan import Plan, PlannedLink, PlannedSite
from discovery_xp.providers.local import cgroups, fabric
from discovery_xp.providers.local.run import run
from discovery_xp.testbed import Testbed
from discovery_xp.topology import Link

_PROMPT = b"VDEwf$ "
_VALUE = re.compile(
    r"^(Delay|Loss|Bandw)\s+L->R\s+([0-9.e+]+?)\+([0-9.e+]+?)[UN]\s+"
    r"R->L\s+([0-9.e+]+?)\+([0-9.e+]+?)[UN]\s*$",
    re.MULTILINE,
)


class VdeWan:
    """The links of a local testbed by VDE; see `hosts.Wan` for the contract."""

    kind = "vde"

    def __init__(self, plan: Plan, testbed: Testbed) -> None:
        self.plan = plan
        self.testbed = testbed
        self.folder = testbed.folder / "wan"

    def impose(self, links: Sequence[PlannedLink]) -> None:
        """Start, change or end the pairs' links so that exactly these hold."""
        by_pair = {(link.source, link.target): link.link for link in links}
        self.folder.mkdir(parents=True, exist_ok=True)
        starting, active = [], []
        for left, right in self._site_pairs():
            there = by_pair.get((left.name, right.name), Link())
            back = by_pair.get((right.name, left.name), Link())
            running = self._is_running(left, right)
            if there.is_plain and back.is_plain:
                self._end(left, right)
                continue
            active.append((left, right))
            if running:
                self._set(left, right, there, back)
            else:
                self._end(left, right)
                self._start(left, right)
                starting.append((left, right, there, back))
        for left, right, there, back in starting:
            self._wait_for_taps(left, right)
            self._set(left, right, there, back)
        self._route(active)

    def read_back(self) -> list[Reading]:
        """What each wirefilter says of itself; both directions of every pair."""
        readings = []
        for left, right in self._site_pairs():
            there, back = Link(), Link()
            if self._is_running(left, right):
                there, back = parse_showinfo(self._talk(left, right, ["showinfo"]))
            elif self._is_routed(left, right):
                # The way is there but nothing carries it: everything is lost.
                there = back = Link(loss_percent=100.0)
            place = f"{left.name} = {right.name}"
            readings.append(Reading(place, left.name, right.name, there))
            readings.append(Reading(place, right.name, left.name, back))
        return readings

    def reset(self) -> None:
        """End all links and their routes."""
        for left, right in self._site_pairs():
            self._end(left, right)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def broken(self) -> list[str]:
        """Pairs whose link should run but doesn't."""
        return [
            f"{left.name} = {right.name}"
            for left, right in self._site_pairs()
            if self._is_routed(left, right) and not self._is_running(left, right)
        ]

    def _site_pairs(self) -> list[tuple[PlannedSite, PlannedSite]]:
        sites = self.plan.sites
        return [(left, right) for left in sites for right in sites if left.number < right.number]

    def _group(self, left: PlannedSite, right: PlannedSite) -> str:
        return f"wan.{left.number}-{right.number}"

    def _socket(self, left: PlannedSite, right: PlannedSite) -> Path:
        return self.folder / f"{left.number}-{right.number}"

    def _is_routed(self, left: PlannedSite, right: PlannedSite) -> bool:
        return (self.folder / f"{left.number}-{right.number}.routed").exists()

    def _is_running(self, left: PlannedSite, right: PlannedSite) -> bool:
        """All three programs live (dpipe itself may have gone)."""
        names = []
        for pid in cgroups.processes(self.plan.name, self._group(left, right)):
            with contextlib.suppress(OSError):
                names.append(Path(f"/proc/{pid}/comm").read_text().strip())
        return names.count("vde_plug2tap") == 2 and names.count("wirefilter") == 1

    def _start(self, left: PlannedSite, right: PlannedSite) -> None:
        groups = cgroups.create(self.plan.name, self._group(left, right))
        name = self._socket(left, right).name
        (self.folder / name).unlink(missing_ok=True)
        plugs = [
            shlex.join(["ip", "netns", "exec", fabric.site_namespace(self.plan.name, here.name),
                        "vde_plug2tap", "-s", "-", f"wan{there.number}"])
            for here, there in ((left, right), (right, left))
        ]  # fmt: skip
        # dpipe wants a process group of its own, which a session's leader can't make.
        script = "; ".join(
            [
                "set -e",
                *(f"echo $$ >{folder}/cgroup.procs" for folder in groups),
                f"dpipe {plugs[0]} = wirefilter -M {name} = {plugs[1]} </dev/null &",
            ]
        )
        with (self.folder / f"{name}.log").open("w") as log:
            subprocess.Popen(
                ["sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,  # a socket's path may have 107 characters at most
            ).wait()

    def _wait_for_taps(self, left: PlannedSite, right: PlannedSite) -> None:
        deadline = time.monotonic() + 20
        for here, there in ((left, right), (right, left)):
            namespace = fabric.site_namespace(self.plan.name, here.name)
            while True:
                try:
                    run(["ip", "-n", namespace, "link", "show", f"wan{there.number}"])
                    break
                except Failed:
                    if time.monotonic() > deadline:
                        log = self.folder / f"{self._socket(left, right).name}.log"
                        words = log.read_text().splitlines()[-1:] or ["nothing"]
                        raise Failed(
                            f"the link {left.name} = {right.name} doesn't start: {words[0]}",
                            "set it again, or destroy the testbed",
                        ) from None
                    time.sleep(0.05)

    def _route(self, pairs: Sequence[tuple[PlannedSite, PlannedSite]]) -> None:
        """Send the pairs' packets through their TAPs.

        Should a TAP vanish, its route goes with it; the unreachable one that stays
        keeps packets from taking the undelayed way unnoticed.
        """
        lines: dict[str, list[str]] = {}
        for left, right in pairs:
            for here, there in ((left, right), (right, left)):
                namespace = fabric.site_namespace(self.plan.name, here.name)
                device = f"wan{there.number}"
                lines.setdefault(namespace, []).extend(
                    [
                        f"link set {device} address {_mac(here, there)} up",
                        f"neigh replace {there.gateway} lladdr {_mac(there, here)} "
                        f"dev {device} nud permanent",
                        f"route replace unreachable {there.network} metric 1000",
                        f"route replace {there.network} via {there.gateway} dev {device} onlink",
                    ]
                )
        for left, right in pairs:  # noted first, so that a killed run's routes are found
            (self.folder / f"{left.number}-{right.number}.routed").touch()
        for namespace, commands in lines.items():
            fabric.batch(namespace, commands)

    def _end(self, left: PlannedSite, right: PlannedSite) -> None:
        """End a pair's link; packets take the kernel's way again."""
        if cgroups.exists(self.plan.name, self._group(left, right)):
            cgroups.kill(self.plan.name, self._group(left, right))
        if self._is_routed(left, right):
            for here, there in ((left, right), (right, left)):
                namespace = fabric.site_namespace(self.plan.name, here.name)
                with contextlib.suppress(Failed):  # gone with its namespace
                    run(["ip", "-n", namespace, "route", "del", "unreachable",
                         there.network or "", "metric", "1000"])  # fmt: skip
        for left_over in (".routed", ".log", ""):
            (self.folder / f"{left.number}-{right.number}{left_over}").unlink(missing_ok=True)

    def _set(self, left: PlannedSite, right: PlannedSite, there: Link, back: Link) -> None:
        self._talk(left, right, [*_commands("LR", there), *_commands("RL", back)])

    def _talk(self, left: PlannedSite, right: PlannedSite, commands: Sequence[str]) -> str:
        """Say `commands` to a pair's wirefilter; returns all that it answered."""
        answer = b""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(f"/proc/self/fd/{folder}/{self._socket(left, right).name}")
                answer = _until_prompt(connection)
                for command in commands:
                    connection.sendall(command.encode() + b"\n")
                    answer += _until_prompt(connection)
        except OSError as error:
            raise Failed(
                f"the link {left.name} = {right.name} doesn't answer ({error})",
                "set it again, or destroy the testbed",
            ) from None
        finally:
            os.close(folder)
        return answer.decode(errors="replace")


def _until_prompt(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(_PROMPT):
        part = connection.recv(4096)
        if not part:
            raise OSError("it hung up")
        received += part
    return received


def _mac(here: PlannedSite, there: PlannedSite) -> str:
    """Of the TAP at `here` that leads to `there`; a locally administered address."""
    return f"02:d1:{here.number >> 8:02x}:{here.number & 255:02x}:" \
           f"{there.number >> 8:02x}:{there.number & 255:02x}"  # fmt: skip


def _commands(direction: str, link: Link) -> list[str]:
    """A link in wirefilter's words: delay in ms, loss in percent, bandwidth in bytes/s."""
    bytes_per_s = 0 if link.rate_mbit is None else max(1, round(link.rate_mbit * 1e6 / 8))
    return [
        f"delay {direction}{link.delay_ms:.3f}+{link.jitter_ms:.3f}U",
        f"loss {direction}{link.loss_percent:.6f}",
        f"bandwidth {direction}{bytes_per_s}",
    ]


def parse_showinfo(text: str) -> tuple[Link, Link]:
    """wirefilter's `showinfo` to its two directions, left to right first."""
    values = {match[1]: [float(number) for number in match.groups()[1:]]
              for match in _VALUE.finditer(text)}  # fmt: skip
    if not {"Delay", "Loss", "Bandw"} <= values.keys():
        raise Failed("wirefilter's own description can't be read", "destroy the testbed")

    def direction(offset: int) -> Link:
        rate = values["Bandw"][offset] * 8 / 1e6
        return Link(
            delay_ms=values["Delay"][offset],
            jitter_ms=values["Delay"][offset + 1],
            loss_percent=values["Loss"][offset],
            rate_mbit=rate or None,
        )

    return direction(0), direction(2)
