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
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import systemd
from .component import STARTED
from .process import Failure, changed, read, run, succeeds

UNIT = "mariadb"
DATA = "/var/lib/mysql"
# The environment of the unit while a cluster is started; see Debian's galera_new_cluster.
NEW_CLUSTER = "/run/mariadb-wsrep-new-cluster"
SOCKET = "/run/mysqld/mysqld.sock"
NOBODY = "00000000-0000-0000-0000-000000000000"
POLL_S = 0.5
QUERY_S = 10
RECOVERY_S = 300

# What a node is: part of a cluster that has a quorum, running without one, or not running.
PRIMARY, APART, STOPPED = "primary", "apart", "stopped"
SYNCED = "Synced"

Seen = Mapping[str, Any]


@dataclass(frozen=True)
class Position:
    """The last change that a node has: its number in the history `uuid`.

    `uuid` is NOBODY where there is none; `seqno` is -1 where it isn't known.
    """

    uuid: str = NOBODY
    seqno: int = -1


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
    return str(max(known, key=lambda each: int(each["seqno"]))["host"])


def _listed(nodes: Sequence[Seen]) -> str:
    return ", ".join(str(each["host"]) for each in nodes)


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
        "seqno": position.seqno, "problem": problem,
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
        return _seen(own["host"], STOPPED, recovered(), changes=changes)
    except Failure as failure:
        return _seen(own["host"], STOPPED, Position(), str(failure), changes)


def recovered() -> Position:
    """Return how far the stopped node came.

    Raises Failure where its data can't be read, or aren't those of its cluster.
    """
    if not os.path.isdir(f"{DATA}/mysql") or not os.path.exists(f"{DATA}/grastate.dat"):
        return Position()
    noted = read_grastate(read(f"{DATA}/grastate.dat"))
    if noted.uuid != NOBODY and noted.seqno >= 0:
        return noted
    found = _recover()
    if noted.uuid == NOBODY and found.uuid != NOBODY:
        # Galera forgets the history of data that it doesn't trust any more.
        raise Failure("it left the cluster as inconsistent, or the copy for it was broken off")
    return found


def _recover() -> Position:
    """Return the position that MariaDB finds in its data; raises Failure where it can't."""
    words = ["/usr/sbin/mariadbd", "--user=mysql", "--wsrep-recover", "--disable-log-error"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=RECOVERY_S, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"mariadbd --wsrep-recover didn't end in {RECOVERY_S} s") from None
    found = read_recovered(done.stderr)
    if done.returncode or found is None:
        errors = [line for line in done.stderr.splitlines() if "[ERROR]" in line]
        raise Failure(f"its data can't be read: {' / '.join(errors[-3:]) or 'no position'}")
    return found


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
        with contextlib.suppress(FileNotFoundError):
            path = f"{DATA}/grastate.dat"
            text = made_safe(read(path))
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        self._forget_view()
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
        self._forget_view()
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

    def _forget_view(self) -> None:
        """Have the node ask who is there: the members of before may have another view by now."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{DATA}/gvwstate.dat")

    def _drop_broken_data(self) -> bool:
        """Empty the data's folder where its data can't be read; returns whether it did."""
        succeeds(["systemctl", "stop", UNIT])
        try:
            recovered()
        except Failure:
            for entry in os.scandir(DATA):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
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
    """Wait until the node sees all the others."""
    Node(args).wait_until_synced(args["size"])
    return {}


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
