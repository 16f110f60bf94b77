"""What is known of a load so far: its hosts' lines, merged into rows.  Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from discovery_xp import store
from discovery_xp.boundary import answers
from discovery_xp.boundary.answers import Unfit
from discovery_xp.inputs.scenario import Scenario
from discovery_xp.onhost.wire import load as wire

PACE_OVER_S = 30.0
MOST_NOTES = 200
# More actions than any scenario has, for each iteration.
ROWS_AT_LEAST = 10_000
ROWS_EACH = 100

VM_COLUMNS = tuple(column.name for column in store.TABLES["vms"])
ACTION_COLUMNS = tuple(column.name for column in store.TABLES["actions"])

# A row of vms.parquet or actions.parquet, as docs/results.md has them.
Row = dict[str, Any]


@dataclass(frozen=True)
class Pace:
    """How a load comes on; `remaining_s` is None where nothing was done of late."""

    done: int
    total: int
    active: int
    failed: int
    rate_per_s: float
    remaining_s: float | None


@dataclass
class _HostState:
    """What a load host said of itself."""

    is_ready: bool = False
    is_loaded: bool = False
    is_done: bool = False
    stage: tuple[str, int, int] = ("", 0, 0)
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_sent_at: float | None = None
    crash: str = ""
    ended: str | None = None
    reported: set[str] = field(default_factory=set)


class Ledger:
    """The load hosts' lines, merged into rows; pure, apart from what it is told."""

    def __init__(self, scenario: Scenario, hosts: Sequence[str], sites: Mapping[str, str]) -> None:
        """Begin with nothing said; `sites` is by host, of all that may run a VM."""
        self.scenario = scenario
        self.sites = sites
        self.hosts = {host: _HostState() for host in hosts}
        self.lost: dict[str, str] = {}
        self.notes: list[str] = []
        self.time_is_up = False
        self.actions: list[Row] = []
        self.iterations = 0
        self.ended_at: list[float] = []
        self._vms: dict[str, Row] = {}
        self._new_vms: list[str] = []
        self._new_actions: list[Row] = []

    def take(self, host: str, line: object) -> None:
        """Take one line of a load host; raises Unfit, with nothing taken, where it is none."""
        state = self.hosts[host]
        kind, values = wire.parse(line)
        if kind == "vm":
            self._take_vm(values)
        elif kind == "action":
            self._require_room()
            row = {column: values[column] for column in ACTION_COLUMNS}
            self.actions.append(row)
            self._new_actions.append(row)
        elif kind == "iteration":
            self.iterations += 1
        elif kind == "usage":
            state.usage["last"] = values
            if values["mark"]:
                state.usage[values["mark"]] = values
        elif kind == "stage":
            state.stage = (values["stage"], values["done"], values["total"])
        elif kind == "ready":
            state.is_ready = True
        elif kind == "loaded":
            state.is_loaded = True
            state.stage = ("", 0, 0)
            state.last_sent_at = values["last_sent_at"]
            self.time_is_up = self.time_is_up or values["time_is_up"]
        elif kind == "note":
            self.note(values["text"])
        elif kind == "crash":
            state.crash = values["error"]
        elif kind == "done":
            state.is_done = True
            self.lost.update(values["lost"])
        elif kind == "unit":
            state.ended = values["words"]

    def note(self, text: str) -> None:
        """Note what went wrong besides; of very many, the first ones."""
        if len(self.notes) < MOST_NOTES:
            self.notes.append(text)

    def _require_room(self) -> None:
        """Raise Unfit where there are more actions than the iterations can have."""
        if len(self.actions) >= ROWS_AT_LEAST + ROWS_EACH * self.scenario.count:
            raise Unfit("more actions than the load can have")

    def _take_vm(self, values: dict[str, Any]) -> None:
        name = values["name"]
        if name not in self._vms and len(self._vms) >= self.scenario.vms:
            raise Unfit(f"more VMs than the {self.scenario.vms} that are asked for")
        fields = {key: value for key, value in values.items() if value is not None}
        merged = {
            **self._vms.get(name, dict.fromkeys((*VM_COLUMNS, "launched_at"))), **fields
        }  # fmt: skip
        if any(merged[column] is None for column in ("region", "site", "requested_at")):
            raise Unfit(f"VM {answers.shown(name)} was never asked for")
        if merged["status"] == "ACTIVE" and merged["seen_at"] is None:
            raise Unfit(f"VM {answers.shown(name)} is ACTIVE and wasn't seen so")
        before = self._vms[name]["status"] if name in self._vms else None
        self._vms[name] = merged
        if merged["status"] is not None and before is None:
            self._new_vms.append(name)
            self.ended_at.append(merged["seen_at"] or time.time())

    def new_rows(self) -> tuple[list[Row], list[Row]]:
        """Return VMs that ended and actions that were taken since the last time."""
        vms, self._new_vms = self._new_vms, []
        actions, self._new_actions = self._new_actions, []
        return [self._row(self._vms[name]) for name in vms], actions

    def _row(self, vm: Mapping[str, Any]) -> Row:
        row = {column: vm[column] for column in VM_COLUMNS}
        if row["status"] == "ACTIVE":
            row["boot_duration_s"] = row["seen_at"] - row["requested_at"]
            launched_at = vm["launched_at"]
            # The cloud counts in whole seconds: none is ACTIVE before it was asked for.
            row["active_at"] = row["seen_at"] if launched_at is None else min(
                row["seen_at"], max(launched_at, row["requested_at"])
            )  # fmt: skip
        row["host_site"] = self.sites.get(row["host"] or "")
        return row

    @property
    def vms(self) -> list[Row]:
        """Return all that were asked for and ended, in the order of the requests."""
        rows = [self._row(vm) for vm in self._vms.values() if vm["status"] is not None]
        return sorted(rows, key=lambda row: (row["requested_at"], row["name"]))

    def give_up(self, reason: str) -> None:
        """End the VMs that haven't ended, for this reason: they are rows as well."""
        for name, vm in self._vms.items():
            if vm["status"] is None:
                vm["status"] = "TIMEOUT"
                cause = "its request wasn't answered" if vm["accepted_at"] is None else (
                    "it wasn't ACTIVE yet"
                )  # fmt: skip
                vm["error"] = f"{cause} when the load ended: {reason}"
                self._new_vms.append(name)

    @property
    def done(self) -> int:
        """Return how many iterations ended."""
        return len(self.ended_at) if self.scenario.boots else self.iterations

    def pace(self, now: float) -> Pace:
        """Return how the load comes on."""
        active = sum(vm["status"] == "ACTIVE" for vm in self._vms.values())
        rate = rate_per_s(self.ended_at, self._first_request(), now)
        return Pace(
            done=self.done,
            total=self.scenario.count,
            active=active,
            failed=len(self.ended_at) - active,
            rate_per_s=rate,
            remaining_s=(self.scenario.count - self.done) / rate if rate else None,
        )

    def _first_request(self) -> float:
        return min((vm["requested_at"] for vm in self._vms.values()), default=0.0)

    def stage(self) -> tuple[str, int, int] | None:
        """Return what the load hosts do before the load and after it, all of them together."""
        stages = [state.stage for state in self.hosts.values() if state.stage[0]]
        if not stages:
            return None
        name = stages[-1][0]
        same = [stage for stage in stages if stage[0] == name]
        return name, sum(stage[1] for stage in same), sum(stage[2] for stage in same)

    @property
    def is_loading(self) -> bool:
        """Tell whether it is after the first host's begin and before the last one's end."""
        began = [state for state in self.hosts.values() if "start" in state.usage]
        return any("end" not in state.usage for state in began)

    def window(self) -> tuple[float, float] | None:
        """Return the first host's begin and the last one's end, or what was heard of it last."""
        starts = [s.usage["start"]["at"] for s in self.hosts.values() if "start" in s.usage]
        ends = [
            state.usage.get("end", state.usage["last"])["at"]
            for state in self.hosts.values()
            if "start" in state.usage
        ]
        return (min(starts), max(ends)) if starts else None

    def spent(self, key: str) -> float:
        """Return `cpu_s` or `polls` of all load hosts over the window."""
        total = 0.0
        for state in self.hosts.values():
            if "start" in state.usage:
                end = state.usage.get("end", state.usage["last"])
                total += end[key] - state.usage["start"][key]
        return total

    def sent_s(self) -> float | None:
        """Return the time between the first request and the last; None without any."""
        last = [state.last_sent_at for state in self.hosts.values() if state.last_sent_at]
        first = [row["requested_at"] for row in self._vms.values()] or [
            row["started_at"] for row in self.actions if row["action"] == "authenticate"
        ]
        return max(0.0, max(last) - min(first)) if last and first else None

    def reason(self) -> str | None:
        """Return why the load is partial, in a line; None when it is complete."""
        why = [f"Rally on {host}: {state.crash}" for host, state in self.hosts.items()
               if state.crash]  # fmt: skip
        why += [
            f"Rally on {host} {state.ended or 'ended early'}"
            for host, state in self.hosts.items()
            if not state.is_done and not state.crash
        ]
        why += self.lost.values()
        if self.time_is_up:
            why.append(f"the run's time ({self.scenario.run_timeout_s:g} s) was up")
        if not why:
            return None
        never = self.scenario.vms - len(self._vms) if self.scenario.boots else 0
        if never:
            why.append(f"{never} of {self.scenario.vms} VMs were never asked for")
        return "; ".join(why)


def rate_per_s(ended_at: Sequence[float], first: float, now: float) -> float:
    """Return how many ended in a second, of late."""
    over_s = min(PACE_OVER_S, max(1.0, now - first))
    return sum(at > now - over_s for at in ended_at) / over_s
