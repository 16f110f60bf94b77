"""How far nodes of Galera came, as they write it down, and which of them starts their cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .process import Failure

# In the place of a history: data that belong to none.
NOBODY = "00000000-0000-0000-0000-000000000000"

# What a node is: part of a cluster that has a quorum, running without one, or not running.
PRIMARY, APART, STOPPED = "primary", "apart", "stopped"

Seen = Mapping[str, Any]


@dataclass(frozen=True)
class Position:
    """The last change that a node has: its number in the history `uuid`.

    `uuid` is NOBODY where there is none; `seqno` is -1 where it isn't known.  A position is
    `doubtful` where the node forgot whose its data are: it left its cluster as inconsistent, a
    copy for it was broken off, or it couldn't start after it was killed.
    """

    uuid: str = NOBODY
    seqno: int = -1
    doubtful: bool = False


# ---------------------------------------------------------------- what nodes write down


def read_grastate(text: str) -> Position:
    """Return the position in a file grastate.dat; the seqno is -1 of a node that didn't stop."""
    fields = dict(re.findall(r"^(uuid|seqno):\s*(\S+)\s*$", text, re.MULTILINE))
    try:
        return Position(fields["uuid"].lower(), int(fields["seqno"]))
    except (KeyError, ValueError):
        return Position()


def made_safe(text: str) -> str:
    """Return a grastate.dat whose node may start a cluster though it wasn't the last to stop."""
    return re.sub(r"^safe_to_bootstrap:.*$", "safe_to_bootstrap: 1", text, flags=re.MULTILINE)


def read_recovered(log: str) -> Position | None:
    """Return the position that `mariadbd --wsrep-recover` found; None where it says none."""
    found = re.findall(r"WSREP: Recovered position:\s*([0-9a-fA-F-]{36}):(-?\d+)", log)
    return Position(found[-1][0].lower(), int(found[-1][1])) if found else None


def read_status(text: str) -> dict[str, str]:
    """Return variables and their values, as the client prints them with tabs between."""
    pairs = (line.partition("\t") for line in text.splitlines())
    return {name.lower(): value for name, tab, value in pairs if tab}


# ---------------------------------------------------------------- the choice


def starter(seen: Sequence[Seen]) -> str | None:
    """Return the host that starts the cluster; None where there is one already.

    `seen` is what each node was found as, in the order of the nodes.  That is the node with the
    highest seqno, the first of several; of nodes without data the first.  Raises Failure where
    nodes have data of different clusters, or none can say how far it came.
    """
    running = [each for each in seen if each["state"] == PRIMARY]
    if len({each["uuid"] for each in running}) > 1:
        raise Failure(
            f"{_listed(running)} are in different clusters: keep one of them, "
            "stop MariaDB on the others and empty /var/lib/mysql there, then deploy again"
        )
    if running:
        return None
    with_data = [each for each in seen if each["uuid"] != NOBODY]
    if len({each["uuid"] for each in with_data}) > 1:
        raise Failure(
            f"{_listed(with_data)} have data of different clusters: empty /var/lib/mysql where it "
            "isn't wanted, then deploy again"
        )
    broken = [each for each in seen if each.get("problem")]
    known = [each for each in with_data if not each.get("problem")]
    if broken and not known:
        raise Failure(
            f"no node can say how far it came; {broken[0]['host']}: {broken[0]['problem']}"
        )
    if not known:
        return str(seen[0]["host"])
    # Data that are in doubt are taken where there are no others: all may have failed to start.
    trusted = [each for each in known if not each.get("doubtful")]
    return str(max(trusted or known, key=lambda each: int(each["seqno"]))["host"])


def _listed(nodes: Sequence[Seen]) -> str:
    return ", ".join(str(each["host"]) for each in nodes)
