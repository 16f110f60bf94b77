"""A node of Galera on this host: what it knows, starting a cluster, joining it, starting again.

All nodes are looked at first, then one of them at most starts a cluster: none does while any has
one, and after a power cut it is the most advanced.  So there are never two clusters, and a run
that is killed meanwhile is made good by the next one.  The steps are done by the Ansible module
`galera_node`; each returns what the next one is told of all nodes (`seen`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import galera_data, systemd
from .component import STARTED
from .galera_positions import (
    APART,
    NOBODY,
    PRIMARY,
    STOPPED,
    Position,
    read_status,
    starter,
)
from .process import Failure, changed, run, succeeds

UNIT = "mariadb"
# The environment of the unit while a cluster is started; see Debian's galera_new_cluster.
NEW_CLUSTER = "/run/mariadb-wsrep-new-cluster"
SOCKET = "/run/mysqld/mysqld.sock"
POLL_S = 0.5
QUERY_S = 10
SYNCED = "Synced"


# ---------------------------------------------------------------- this host's node


def query(sql: str) -> str:
    """Return what MariaDB on this host answers root; raises Failure where it doesn't."""
    # Whoever asks for a node's state must not wait for others.
    return run(
        ["mariadb", f"--socket={SOCKET}", "--batch", "--skip-column-names",
         f"--connect-timeout={QUERY_S}",
         f"--execute=SET SESSION wsrep_sync_wait = 0; {sql}"],
        timeout_s=QUERY_S * 2,
    )  # fmt: skip


def status() -> dict[str, str]:
    """Return Galera's status of this node; nothing where it doesn't answer."""
    try:
        return read_status(query("SHOW GLOBAL STATUS LIKE 'wsrep%'"))
    except Failure:
        return {}


def is_primary(values: Mapping[str, str]) -> bool:
    """Tell whether a node is in a cluster that has a quorum."""
    return values.get("wsrep_cluster_status") == "Primary"


def _seen(
    host: str, state: str, position: Position, problem: str = "", changes: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        **changed(changes), "host": host, "state": state, "uuid": position.uuid,
        "seqno": position.seqno, "doubtful": position.doubtful, "problem": problem,
    }  # fmt: skip


def look(args: Mapping[str, Any]) -> dict[str, Any]:
    """Say whether the node runs and is in a cluster; changes nothing."""
    with contextlib.suppress(FileNotFoundError):  # a starter that was killed left it
        os.unlink(NEW_CLUSTER)
    if systemd.show([UNIT])[UNIT]["ActiveState"] not in ("active", "activating", "reloading"):
        return _seen(args["host"], STOPPED, Position())
    values = status()
    if not is_primary(values):
        return _seen(args["host"], APART, Position())
    position = Position(
        values.get("wsrep_cluster_state_uuid", NOBODY).lower(),
        int(values.get("wsrep_last_committed", "-1")),
    )
    return _seen(args["host"], PRIMARY, position)


def locate(args: Mapping[str, Any]) -> dict[str, Any]:
    """Find how far a node came that isn't in a cluster, where no node is in one; it stops for it.

    Otherwise return what was seen of it.
    """
    seen = {each["host"]: each for each in args["seen"]}
    own = seen[args["host"]]
    if any(each["state"] == PRIMARY for each in seen.values()):
        return _seen(own["host"], own["state"], Position(own["uuid"], own["seqno"]))
    changes = []
    if own["state"] == APART:
        run(["systemctl", "stop", UNIT], timeout_s=args["timeout_s"])
        changes.append(f"{UNIT} without a quorum stopped")
    try:
        return _seen(own["host"], STOPPED, galera_data.recovered(), changes=changes)
    except Failure as failure:
        return _seen(own["host"], STOPPED, Position(), str(failure), changes)


class Node:
    """The node of this host, and the cluster that it belongs to."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.args = args
        self.host: str = args["host"]
        self.deadline = time.monotonic() + args["timeout_s"]
        self.notes = systemd.StartNotes(STARTED)
        self.changes: list[str] = []

    @property
    def digest(self) -> str:
        """What the files say that the node is started with."""
        texts = []
        for path in self.args["files"]:
            with open(path, "rb") as file:
                texts.append(file.read())
        return hashlib.sha256(repr(texts).encode()).hexdigest()

    def start_cluster(self) -> None:
        """Start a cluster of this node alone, and wait until it takes clients."""
        galera_data.make_safe()
        galera_data.forget_view()
        since = time.time()
        try:
            run(["galera_new_cluster"], timeout_s=self.args["timeout_s"])
        except Failure:
            raise systemd.failure(UNIT, "it can't start a cluster", since) from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(NEW_CLUSTER)
        self._noted(f"a cluster started by {self.host}")

    def join(self) -> bool:
        """Start the node unless it runs, and wait until it takes clients.

        Data that can't be read are dropped, as the cluster has them.  Returns whether it runs
        with files of before.
        """
        state = self._settled_state()
        if state == "active" and is_primary(status()):
            self.wait_until_synced()
            return self.notes.of(UNIT) != self.digest
        galera_data.forget_view()
        try:
            systemd.restart([UNIT], self.deadline - time.monotonic())
        except Failure:
            if not self._drop_broken_data():
                raise
            systemd.restart([UNIT], self.deadline - time.monotonic())
        self._noted(f"{self.host} joined")
        return False

    def _settled_state(self) -> str:
        """Return systemd's word on the node; one that starts by itself is waited for."""
        start = time.monotonic()
        while True:
            state = systemd.show([UNIT])[UNIT]["ActiveState"]
            half_s = self.args["timeout_s"] / 2
            if state != "activating" or time.monotonic() - start > half_s:
                return state
            time.sleep(POLL_S)

    def restart(self) -> None:
        """Start the node again with the files that are there now."""
        systemd.restart([UNIT], self.deadline - time.monotonic())
        self._noted(f"{self.host} started again")

    def wait_until_synced(self, size: int = 1) -> None:
        """Wait until the node has all changes and sees at least so many members."""
        since = time.time()

        def complaint() -> str:
            values = status()
            if not is_primary(values):
                return f"it is {values.get('wsrep_cluster_status', 'not answering')}"
            if values.get("wsrep_local_state_comment") != SYNCED:
                return f"it is {values.get('wsrep_local_state_comment', 'without a state')}"
            seen = int(values.get("wsrep_cluster_size", "0"))
            return "" if seen >= size else f"it sees {seen} of {size} members"

        words = complaint()
        while words:
            if time.monotonic() > self.deadline:
                raise systemd.failure(
                    UNIT, f"not in the cluster after {self.args['timeout_s']} s: {words}", since
                )
            time.sleep(POLL_S)
            words = complaint()

    def _noted(self, change: str) -> None:
        systemd.enable([UNIT])
        self.wait_until_synced()
        self.notes.write(UNIT, self.digest)
        self.changes.append(change)

    def _drop_broken_data(self) -> bool:
        """Empty the data's folder where its data can't be read; returns whether it did."""
        succeeds(["systemctl", "stop", UNIT])
        try:
            galera_data.recovered()
        except Failure:
            galera_data.empty()
            self.changes.append(f"data of {self.host} that can't be read dropped")
            return True
        return False


def start(args: Mapping[str, Any]) -> dict[str, Any]:
    """Start a cluster where this is the host that is to."""
    node = Node(args)
    if starter(args["seen"]) == node.host:
        node.start_cluster()
    return changed(node.changes)


def join(args: Mapping[str, Any]) -> dict[str, Any]:
    """Have the node in the cluster; returns `outdated`, whether it runs with files of before."""
    node = Node(args)
    outdated = node.join()
    return {**changed(node.changes), "outdated": outdated}


def restart(args: Mapping[str, Any]) -> dict[str, Any]:
    """Start the node again; who calls sees to it that the others run."""
    node = Node(args)
    node.restart()
    return changed(node.changes)


def agree(args: Mapping[str, Any]) -> dict[str, Any]:
    """Wait until the node sees all the others; returns `members`, how many it sees by then."""
    Node(args).wait_until_synced(args["size"])
    return {"members": int(status().get("wsrep_cluster_size", "0"))}


_STEPS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "look": look,
    "locate": locate,
    "start": start,
    "join": join,
    "restart": restart,
    "agree": agree,
}


def take(args: Mapping[str, Any]) -> dict[str, Any]:
    """Take a step; `args` are the options of Ansible's module `galera_node`."""
    step = _STEPS.get(args["step"])
    if step is None:
        raise Failure(f"no step '{args['step']}'; there are {', '.join(_STEPS)}")
    return step(args)
