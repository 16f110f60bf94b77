"""Who on this machine reaches a testbed's hosts, and what of this machine they reach.

Policy rules of this machine's routing, for they need neither netfilter nor another program.
In their order, for packets to the testbed's network:

1. This machine's services don't answer: what leaves from a port that no client of this machine
   would have chosen is prohibited.  So no TCP connection from a host to this machine comes about.
2. What root sends goes its way.
3. All else is prohibited: what other users send, and what is forwarded, from containers say.

Where hosts' packets leave their site, datagrams (UDP) to this machine are prohibited, too.
`up --expose` goes without any of these.

The rules bear a number of ours as their protocol.  Those whose network no interface of ours
leads to belong to a testbed that is gone.  Transport protocols have their number: ip(8) knows
their names from /etc/protocols only, which a small Debian lacks.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from discovery_xp.errors import Failed
from discovery_xp.planning.plan import Plan
from discovery_xp.providers.local.run import run

# Of rtnetlink's protocols, one that no routing daemon has; see /etc/iproute2/rt_protos.
PROTOCOL = 222
# Before the rules that the kernel begins with (32766), after what others put first.
_FIRST_PRIORITY = 22200
_SITE_PRIORITY = 100
# The last one that a rule of the kernel may name.
_LAST_PORT = 65534
# How this machine's interface to a testbed is called; see `fabric.machine_device`.
DEVICE = re.compile(r"dxp[0-9a-f]{10}")
_LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

Rule = tuple[int, str]


def rules(network: str, client_ports: tuple[int, int]) -> list[Rule]:
    """Priority and words of each rule; clients of this machine leave from `client_ports`."""
    lowest, highest = client_ports
    tcp = f"iif lo to {network} ipproto {socket.IPPROTO_TCP:d}"
    words = [f"{tcp} sport 1-{lowest - 1} prohibit"] if lowest > 1 else []
    if highest < _LAST_PORT:
        words.append(f"{tcp} sport {highest + 1}-{_LAST_PORT} prohibit")
    words.append(f"iif lo uidrange 0-0 to {network} lookup main")
    words.append(f"to {network} prohibit")
    return list(enumerate(words, start=_FIRST_PRIORITY))


def site_rule(plan: Plan) -> str:
    """Return what ip(8) is told after `rule add` in a site's namespace."""
    return (
        f"priority {_SITE_PRIORITY} protocol {PROTOCOL} "
        f"iif hosts to {plan.machine} ipproto {socket.IPPROTO_UDP:d} prohibit"
    )


def apply(plan: Plan, exposed: bool) -> bool:
    """Make the rules of a testbed what they should be; returns whether they weren't.

    Raises Failed where the kernel has no such rules.
    """
    network = str(ipaddress.IPv4Network(plan.network or ""))
    needed = [] if exposed else rules(network, _client_ports())
    present = [rule for rule in _ours() if _network(rule) == network]
    if _described(present) == {(priority, _facts(words)) for priority, words in needed}:
        return False
    _delete(present)
    try:
        for priority, words in needed:
            run(["ip", "-4", "rule", "add", "priority", str(priority),
                 "protocol", str(PROTOCOL), *words.split()])  # fmt: skip
    except Failed as error:
        _delete(rule for rule in _ours() if _network(rule) == network)
        raise Failed(
            f"other users of this machine can't be kept from the hosts: {error.message}",
            "give --expose to go without that",
        ) from None
    return True


def remove_strays() -> None:
    """Remove the rules of testbeds whose interface is gone."""
    ours = _ours()
    if not ours:
        return
    routes = json.loads(run(["ip", "-4", "-j", "route", "show"]) or "[]")
    led_to = {route["dst"] for route in routes if DEVICE.fullmatch(str(route.get("dev", "")))}
    _delete(rule for rule in ours if _network(rule) not in led_to)


def _client_ports() -> tuple[int, int]:
    lowest, highest = _LOCAL_PORTS.read_text().split()
    return int(lowest), int(highest)


def _ours() -> list[Mapping[str, Any]]:
    listed = json.loads(run(["ip", "-4", "-j", "rule", "show"]) or "[]")
    return [rule for rule in listed if str(rule.get("protocol")) == str(PROTOCOL)]


def _network(rule: Mapping[str, Any]) -> str:
    return f"{rule.get('dst', '')}/{rule.get('dstlen', 32)}"


def _described(entries: Iterable[Mapping[str, Any]]) -> set[tuple[int, tuple[str, ...]]]:
    described: set[tuple[int, tuple[str, ...]]] = set()
    for rule in entries:
        facts = (
            _network(rule),
            str(rule.get("iif", "")),
            f"{rule['sport_start']}-{rule['sport_end']}" if "sport_start" in rule else "",
            f"{rule['uid_start']}-{rule['uid_end']}" if "uid_start" in rule else "",
            str(rule.get("action") or rule.get("table")),
        )
        described.add((int(rule["priority"]), facts))
    return described


def _facts(words: str) -> tuple[str, ...]:
    """The same of a rule of `rules`."""
    parts = words.split()

    def after(name: str) -> str:
        return parts[parts.index(name) + 1] if name in parts else ""

    return after("to"), after("iif"), after("sport"), after("uidrange"), parts[-1]


def _delete(entries: Iterable[Mapping[str, Any]]) -> None:
    for rule in entries:
        with contextlib.suppress(Failed):  # another process has just removed it
            run(["ip", "-4", "rule", "del", "priority", str(rule["priority"]),
                 "protocol", str(PROTOCOL), "to", _network(rule)])  # fmt: skip
