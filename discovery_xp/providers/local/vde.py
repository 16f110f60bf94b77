"""Links between emulated sites by VDE, in user space: for kernels without sch_netem.

For each pair of sites that has something to impose:

    site A's gateway --TAP-- vde_switch = wirefilter = vde_switch --TAP-- site B's gateway

and a route through it at both ends.  Sites meet at layer 3, so that any mesh of
pairs is free of loops, and each direction has values of its own.  Pairs with
nothing to impose stay on the kernel's path over the backbone.

(Joining TAPs by dpipe and vde_plug2tap takes fewer parts, but locks up under load: with
both pipes full, each end waits for the other to read.  Switches drop instead.)
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from discovery_xp.errors import Failed
from discovery_xp.inputs.topology import Link
from discovery_xp.planning.plan import Plan, PlannedLink, PlannedSite
from discovery_xp.providers.local import cgroups, claims, fabric
from discovery_xp.providers.local.run import run
from discovery_xp.testbeds.hosts import Reading

_PROMPT = b"VDEwf$ "
_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_VALUE = re.compile(
    rf"^(Delay|Loss|Bandw)\s+L->R\s+{_NUMBER}\+{_NUMBER}[UN]\s+"
    rf"R->L\s+{_NUMBER}\+{_NUMBER}[UN]\s*$",
    re.MULTILINE,
)


class VdeWan:
    """The links of a local testbed by VDE; see `hosts.Wan` for the contract."""

    kind = "vde"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.folder = claims.folder(plan.name)

    def impose(self, links: Sequence[PlannedLink]) -> None:
        """Start, change or end the pairs' links so that exactly these hold."""
        by_pair = {(link.source, link.target): link.link for link in links}
        claims.make_folder(self.plan.name)
        active = []
        for left, right in self._site_pairs():
            there = by_pair.get((left.name, right.name), Link())
            back = by_pair.get((right.name, left.name), Link())
            if there.is_plain and back.is_plain:
                self._end(left, right)
                continue
            if not self._is_running(left, right):
                self._end(left, right)
                self._start(left, right)
            self._set(left, right, there, back)
            active.append((left, right))
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
        """All three programs live."""
        names = []
        for pid in cgroups.processes(self.plan.name, self._group(left, right)):
            with contextlib.suppress(OSError):
                names.append(Path(f"/proc/{pid}/comm").read_text().strip())
        return names.count("vde_switch") == 2 and names.count("wirefilter") == 1

    def _start(self, left: PlannedSite, right: PlannedSite) -> None:
        groups = cgroups.create(self.plan.name, self._group(left, right))
        name = self._socket(left, right).name
        inside = {
            site: f"ip netns exec {fabric.site_namespace(self.plan.name, site.name)}"
            for site in (left, right)
        }
        script = "\n".join(
            [
                *(f"echo $$ >{folder}/cgroup.procs" for folder in groups),
                f"{inside[left]} vde_switch -s {name}.left -t wan{right.number} -d",
                f"{inside[right]} vde_switch -s {name}.right -t wan{left.number} -d",
                # Inside too: the namespace's longer datagram queues are for it as well.
                f"{inside[left]} wirefilter -v {name}.left:{name}.right -M {name} --daemon",
            ]
        )
        log = self.folder / f"{name}.log"
        with log.open("w") as output:
            done = subprocess.run(
                ["sh", "-ec", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                check=False,
            )
        deadline = time.monotonic() + 10
        while not (self._is_running(left, right) and self._socket(left, right).exists()):
            if done.returncode or time.monotonic() > deadline:
                words = log.read_text().splitlines()[-1:] or ["it says nothing"]
                raise Failed(
                    f"the link {left.name} = {right.name} doesn't start: {words[0]}",
                    "set it again, or destroy the testbed",
                )
            time.sleep(0.01)

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
        name = self._socket(left, right).name
        for left_over in (".routed", ".log", ""):
            (self.folder / f"{name}{left_over}").unlink(missing_ok=True)
        for end in ("left", "right"):
            shutil.rmtree(self.folder / f"{name}.{end}", ignore_errors=True)

    def _set(self, left: PlannedSite, right: PlannedSite, there: Link, back: Link) -> None:
        in_order = keeps_order(there, back)
        commands = [*_commands("LR", there), *_commands("RL", back), f"fifo {int(in_order)}"]
        self._talk(left, right, commands)

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


def keeps_order(there: Link, back: Link) -> bool:
    """True where wirefilter may be told to deliver packets in the order of their arrival.

    Its order spans both directions: a packet would wait for one of the slower direction
    that came before it.  So only links that are alike and have nothing that holds single
    packets back stay in order; elsewhere bursts may be reordered, as by netem's jitter.
    """
    return there == back and not there.jitter_ms and there.rate_mbit is None


def _commands(direction: str, link: Link) -> list[str]:
    """A link in wirefilter's words: delay in ms, loss in percent, bandwidth in bytes/s."""
    bytes_per_s = 0 if link.rate_mbit is None else max(1, round(link.rate_mbit * 1e6 / 8))
    # An endless queue before a narrow link would turn into seconds of delay: hold what is
    # on the way, twice, and 1000 packets at least (as `network.netem_arguments`).
    in_flight = bytes_per_s * (link.delay_ms + link.jitter_ms) / 1000
    queue_bytes = 0 if link.rate_mbit is None else max(1_500_000, round(2 * in_flight))
    return [
        f"delay {direction}{link.delay_ms:.3f}+{link.jitter_ms:.3f}U",
        f"loss {direction}{link.loss_percent:.6f}",
        f"bandwidth {direction}{bytes_per_s}",
        f"chanbufsize {direction}{queue_bytes}",
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
