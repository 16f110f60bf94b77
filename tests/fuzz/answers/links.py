"""What hosts and emulators say of their links."""

from __future__ import annotations

import json
from typing import Any

from discovery_xp.providers.local import vde
from discovery_xp.testbeds import links, pings
from tests.fuzz.answers.common import PLAN, Anything, hosts_of, printed, say, saying, target, text

_TC = {
    "": [
        '[{"kind":"htb","handle":"1:","root":true,"options":{}},'
        '{"kind":"netem","handle":"10:","parent":"1:1","options":{"limit":1000,'
        '"delay":{"delay":0.003,"jitter":0.001,"correlation":0},"loss-random":{"loss":0.005}}}]'
        "\n==\nclass htb 1:1 root leaf 10: prio 0 rate 100Mbit ceil 100Mbit burst 1600b\n\n==\n"
        "filter protocol ip pref 49152 u32 chain 0 fh 800::800 order 2048 flowid 1:1 not_in_hw\n"
        "  match 0a630200/ffffff00 at 16\n",
        "",
    ],
    "site1-compute-1": ["[]\n==\n\n==\n", ""],
}


@target("tc", _TC)
def take_tc(told: Any) -> None:
    """What tc says, for `network show` and after links were imposed."""
    outputs = saying(told)(hosts_of(), {host.name: "" for host in PLAN.hosts})
    for words in links.disagreements(PLAN.links, links.readings_of(PLAN, outputs)):
        printed_words(words)


def printed_words(words: str) -> None:
    """A line as `network show` prints it."""
    from discovery_xp.cli.common import console

    console().print(f"  {words}", markup=False)


@target("routes", {"": "10.0.0.2 via 10.0.0.254 dev host0 src 10.0.0.1 uid 0\\    cache"})
def take_routes(told: Any) -> None:
    """The devices by which hosts say they reach each other; they stand in shell commands."""
    module: Anything = links
    module.run_each = saying(told)
    for device in links.NetemWan(hosts_of())._devices().values():
        if any(sign in device for sign in ";|&$`()<>\n'\"\\* "):
            raise AssertionError(f"a host's word goes into a command: {device!r}")


_HERE, _THERE = (PLAN.hosts_of(site.name)[0] for site in PLAN.sites)
_FPING = {
    _HERE.name: ["", f"{_THERE.address} : 25.1 20.1 20.2 20.3"],
    _THERE.name: ["", f"{_HERE.address} : 25.1 20.1 - 20.3"],
}


@target("fping", _FPING)
def take_fping(told: Any) -> None:
    """Round trips as fping prints them on the hosts."""
    module: Anything = links
    module.run_each = saying(told)
    pairs = links.measure(hosts_of(), PLAN.links, 3)
    json.dumps([pair.to_json() for pair in pairs])
    from discovery_xp.cli.network import _pairs_table

    printed(_pairs_table(pairs))
    pings.require_within_tolerance(pairs)


_SHOWINFO = (
    "WireFilter: bidirectional\nLoss   L->R 0.1+0U   R->L 0+0U\n"
    "Delay  L->R 30+2U   R->L 12.5+0U\nBandw  L->R 2.5e+06+0U   R->L 1.25e+08+0U\n"
)


@target("showinfo", _SHOWINFO)
def take_showinfo(told: Any) -> None:
    """What wirefilter says of itself."""
    there, back = vde.parse_showinfo(text(told))
    say(f"{links.describe(there)} {links.describe(back)}")
