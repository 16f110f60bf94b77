"""Packets that leave a host, counted by nftables: by where they go and the service's port."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable

from .. import catalogue
from ..process import Failure, run, succeeds
from ..wire.counters import traffic_key

TABLE = "discovery_xp"
PACKAGE = "nftables"
_SET = ("list", "set", "inet", TABLE, "traffic")


def rules(ports: Iterable[int] = catalogue.TRAFFIC) -> str:
    """Return the table that counts every packet that leaves the host, once.

    Traffic by none of `ports` is counted as port 0.  ssh is how the host is worked on, and no
    part of the cloud.
    """
    listed = ", ".join(str(port) for port in ports)
    return f"""
        table inet {TABLE} {{
          set ports {{ type inet_service; elements = {{ {listed} }} }}
          set traffic {{
            type ipv4_addr . inet_service; size 65535; flags dynamic; counter
          }}
          chain output {{
            type filter hook output priority 50; policy accept;
            oifname "lo" return
            meta nfproto != ipv4 return
            tcp dport {catalogue.SSH_PORT} return
            tcp sport {catalogue.SSH_PORT} return
            tcp dport @ports add @traffic {{ ip daddr . tcp dport }} return
            tcp sport @ports add @traffic {{ ip daddr . tcp sport }} return
            add @traffic {{ ip daddr . 0 }}
          }}
        }}
    """


def has_table() -> bool:
    """Tell whether the counters are there."""
    return bool(shutil.which("nft")) and succeeds(["nft", *_SET])


def make_table() -> None:
    """Make the counters, from zero."""
    run(["nft", "-f", "-"], stdin=rules())


def remove_table() -> None:
    """Take the counters away."""
    run(["nft", "delete", "table", "inet", TABLE])


def install_nftables() -> bool:
    """Install nftables where it lacks: hosts that aren't emulated have what their owner chose."""
    if shutil.which("nft"):
        return False
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    install = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", PACKAGE]
    try:
        run([*environment, *install], timeout_s=600)
    except Failure:
        run([*environment, "apt-get", "update", "--quiet"], timeout_s=600)
        run([*environment, *install], timeout_s=600)
    return True


def now() -> dict[str, list[int]]:
    """Return bytes and packets since the table was made, by address and port."""
    answer = json.loads(run(["nft", "-j", *_SET]))
    counted = {}
    for entry in answer["nftables"]:
        for element in entry.get("set", {}).get("elem", []):
            address, port = element["elem"]["val"]["concat"]
            counter = element["elem"]["counter"]
            counted[traffic_key(address, port)] = [counter["bytes"], counter["packets"]]
    return counted
