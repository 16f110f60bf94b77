#!/usr/bin/python
"""The probes of a host: laid down, started, read and taken away, one task for each.

What runs inside services comes in by a drop-in of their units; the rest is read from the
kernel and from RabbitMQ.  `start` notes what all counters are at, so does `stop`, and
`collect` says how far they came.
"""

from __future__ import annotations

import base64
import compileall
import glob
import gzip
import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: probes
short_description: What the bench measures a host by
options:
  step: {description: "deploy, start, stop, collect or remove", required: true, type: str}
  wanted: {description: Names of the probes that are on., type: list, default: []}
  units:
    description: "unit -> probes inside it, and its HTTP port if it has one"
    type: dict
    default: {}
  contents: {description: "path below the probes' folder -> text", type: dict, default: {}}
  ports: {description: Ports of services that traffic is told apart by., type: list, default: []}
  since: {description: "Start of the window, s since 1970.", type: float, default: 0}
  until: {description: "Its end.", type: float, default: 0}
  timeout_s: {description: For services to answer again., type: int, default: 180}
"""

PLACE = "/etc/discovery-xp-probes"
RECORDS = "/var/lib/discovery-xp-probes"
START = f"{RECORDS}/start.json"
STOP = f"{RECORDS}/stop.json"
UNITS = "/etc/systemd/system"
DROP_IN = "probes.conf"
CHANGING = "changing"
# Services write about once a second.
WRITTEN_AFTER_S = 1.5
JOURNAL_LINES = 20
TABLE = "discovery_xp"
PACKAGE = "nftables"


class Failure(Exception):
    """What the task fails with."""

    def __init__(self, message: str, **more: Any) -> None:
        super().__init__(message)
        self.more = more


def run(words: list[str], stdin: str | None = None, timeout_s: float = 120) -> str:
    """A command's output; raises Failure with its words."""
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(f"{words[0]}: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Failure(f"{' '.join(words[:3])}: {said[-500:]}")
    return done.stdout


def read(path: str) -> str:
    """A file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()


# ---------------------------------------------------------------- systemd


def drop_in(name: str) -> str:
    """Where a unit's drop-in of ours is."""
    return f"{UNITS}/{name}.service.d/{DROP_IN}"


def show(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """What systemd says of each unit; those that it doesn't know have no FragmentPath."""
    names = list(units)
    if not names:
        return {}
    properties = "ActiveState,MainPID,NRestarts,User,FragmentPath,DropInPaths,ControlGroup"
    text = run(["systemctl", "show", f"--property={properties}", *names])
    blocks = text.strip("\n").split("\n\n")
    return {
        name: dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for name, block in zip(names, blocks, strict=True)
    }


def own_python_path(unit: Mapping[str, str]) -> str:
    """PYTHONPATH as the unit itself sets it, without our drop-in."""
    found = ""
    for path in [unit["FragmentPath"], *unit["DropInPaths"].split()]:
        if path.endswith(f"/{DROP_IN}"):
            continue
        for line in read(path).splitlines():
            setting = re.match(r'\s*Environment="?PYTHONPATH=([^"]*)', line)
            found = setting[1].strip() if setting else found
    return found


def wanted_environment(
    name: str, probes: list[str], unit: Mapping[str, str], code: str
) -> dict[str, str]:
    """What a unit's processes are started with so that the probes get in."""
    if not probes:
        return {}
    paths = [PLACE, own_python_path(unit)]
    return {
        "PYTHONPATH": ":".join(path for path in paths if path),
        "DISCOVERY_PROBES": ",".join(probes),
        "DISCOVERY_PROBE_FOLDER": f"{RECORDS}/{name}",
        "DISCOVERY_PROBE_CODE": code,
    }


# Services overwrite the memory that /proc shows as their environment, so it is noted what
# each was started with.  No note: without probes.


def noted(name: str) -> str:
    """Digest of what a unit was started with."""
    try:
        with open(f"{RECORDS}/{name}.started", encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def note(name: str, digest: str) -> None:
    """Note it; before a drop-in changes, too, so that a killed run's is found."""
    path = f"{RECORDS}/{name}.started"
    if digest:
        os.makedirs(RECORDS, mode=0o755, exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(digest)
    elif os.path.exists(path):
        os.unlink(path)


def digest_of(environment: Mapping[str, str]) -> str:
    """Of what a unit is to be started with; empty without probes."""
    if not environment:
        return ""
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:12]


# ---------------------------------------------------------------- laying down


class Installation:
    """The wanted probes on this host, and nothing else of ours."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.args = args
        self.changes: list[str] = []

    def run(self) -> None:
        """All steps; only services whose probes change are restarted."""
        wanted = set(self.args["wanted"])
        inside = {name: list(unit["probes"]) for name, unit in self.args["units"].items()}
        code = self.lay_down(self.args["contents"] if any(inside.values()) else {})
        units = show(inside)
        environments = {
            name: wanted_environment(name, probes, units[name], code)
            for name, probes in inside.items()
            if units[name]["FragmentPath"]
        }
        self.folders(environments, units, bool(wanted))
        self.drop_ins(environments)
        self.restart(environments)
        if "traffic" in wanted:
            if not shutil.which("nft"):
                self.install_nftables()
            if not has_table():
                make_table(self.args["ports"])
                self.changes.append(f"table {TABLE}")
        else:
            self.remove_table()
        if not environments or not any(environments.values()):
            self.remove_tree(PLACE)
        if not wanted:
            self.remove_tree(RECORDS)

    def lay_down(self, contents: Mapping[str, str]) -> str:
        """The package, compiled: the services may not write there.  Returns its digest."""
        if not contents:
            return ""
        code = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:12]
        stamp = f"{PLACE}/{code}"
        if not os.path.exists(stamp):
            self.remove_tree(PLACE)
            for path, text in contents.items():
                os.makedirs(os.path.dirname(f"{PLACE}/{path}"), exist_ok=True)
                with open(f"{PLACE}/{path}", "w", encoding="utf-8") as file:
                    file.write(text)
            compileall.compile_dir(PLACE, quiet=2)
            for folder, folders, files in os.walk(PLACE):
                for name in [".", *folders, *files]:
                    os.chmod(f"{folder}/{name}", 0o755 if name in [".", *folders] else 0o644)
            with open(stamp, "w", encoding="utf-8"):
                pass
            self.changes.append(PLACE)
        return code

    def folders(
        self,
        environments: Mapping[str, Mapping[str, str]],
        units: Mapping[str, Mapping[str, str]],
        is_any: bool,
    ) -> None:
        """Where records go: each service writes to a folder of its own."""
        if is_any:
            os.makedirs(RECORDS, mode=0o755, exist_ok=True)
        for name, environment in environments.items():
            if not environment:
                self.remove_tree(f"{RECORDS}/{name}")
                continue
            path = environment["DISCOVERY_PROBE_FOLDER"]
            os.makedirs(path, exist_ok=True)
            user = pwd.getpwnam(units[name]["User"] or "root")
            os.chown(path, user.pw_uid, user.pw_gid)
            os.chmod(path, 0o700)

    def drop_ins(self, environments: Mapping[str, Mapping[str, str]]) -> None:
        """Exactly these."""
        before = len(self.changes)
        wanted = {
            drop_in(name): environment for name, environment in environments.items() if environment
        }
        for path in sorted(set(glob.glob(drop_in("*"))) - wanted.keys()):
            note(path.split("/")[-2].removesuffix(".service.d"), CHANGING)
            os.unlink(path)
            if not os.listdir(os.path.dirname(path)):
                os.rmdir(os.path.dirname(path))
            self.changes.append(f"{path} gone")
        for name, environment in environments.items():
            path = drop_in(name)
            lines = [f"Environment={key}={value}\n" for key, value in environment.items()]
            text = f"[Service]\n{''.join(lines)}"
            if not environment or (os.path.exists(path) and read(path) == text):
                continue
            note(name, CHANGING)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{path}.new", path)
            self.changes.append(path)
        if len(self.changes) > before:
            run(["systemctl", "daemon-reload"])

    def restart(self, environments: Mapping[str, Mapping[str, str]]) -> None:
        """Those that run with other probes than wanted."""
        wanted = {name: digest_of(environment) for name, environment in environments.items()}
        stale = [name for name, digest in wanted.items() if noted(name) != digest]
        if not stale:
            return
        state = show(stale)
        for name in stale:  # one that is down is not started by us
            if state[name]["ActiveState"] != "active":
                note(name, wanted[name])
        stale = [name for name in stale if state[name]["ActiveState"] == "active"]
        if not stale:
            return
        since = time.time()
        deadline = time.monotonic() + self.args["timeout_s"]
        failure = ""
        try:
            run(["systemctl", "restart", *stale], timeout_s=self.args["timeout_s"])
        except Failure as error:
            failure = str(error)
        state = show(stale)
        for name in stale:
            if state[name]["ActiveState"] != "active":
                raise self.told(name, failure or "did not stay up", since)
        for name in stale:
            port = self.args["units"][name]["port"]
            if port:
                self.wait_for(name, port, deadline, since)
            note(name, wanted[name])
        self.changes += [f"{name} started" for name in stale]

    def wait_for(self, name: str, port: int, deadline: float, since: float) -> None:
        """gunicorn listens before its application is loaded: only an answer says that it is."""
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                    connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
                    if connection.recv(16).startswith(b"HTTP/"):
                        return
            except OSError:
                pass
            unit = show([name])[name]
            if unit["ActiveState"] not in ("active", "activating") or unit["NRestarts"] != "0":
                raise self.told(name, f"died before port {port} answered", since)
            if time.monotonic() > deadline:
                raise self.told(name, f"port {port} doesn't answer", since)
            time.sleep(0.2)

    def told(self, name: str, message: str, since: float) -> Failure:
        time.sleep(1)  # what it says as it dies is still on its way
        journal = subprocess.run(
            ["journalctl", "--no-pager", "--output=cat", f"--unit={name}",
             f"--since=@{int(since) - 1}"],
            capture_output=True, text=True, check=False,
        ).stdout.splitlines()[-JOURNAL_LINES:]  # fmt: skip
        return Failure(f"{name}: {message}", journal=journal, unit=name)

    def install_nftables(self) -> None:
        """Hosts that aren't emulated have what their owner installed."""
        environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
        install = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", PACKAGE]
        try:
            run([*environment, *install], timeout_s=600)
        except Failure:
            run([*environment, "apt-get", "update", "--quiet"], timeout_s=600)
            run([*environment, *install], timeout_s=600)
        self.changes.append(PACKAGE)

    def remove(self) -> None:
        """All of it, whatever was wanted; services that still run keep what they have."""
        self.drop_ins({})
        self.remove_table()
        self.remove_tree(PLACE)
        self.remove_tree(RECORDS)

    def remove_table(self) -> None:
        if has_table():
            run(["nft", "delete", "table", "inet", TABLE])
            self.changes.append(f"table {TABLE} gone")

    def remove_tree(self, path: str) -> None:
        if os.path.isdir(path):
            shutil.rmtree(path)
            self.changes.append(f"{path} gone")


# ---------------------------------------------------------------- traffic


def table(ports: Iterable[int]) -> str:
    """Every packet that leaves the host is counted once, by where it goes and the service's port.

    ssh is how the host is worked on, and no part of the cloud.
    """
    known = ", ".join(str(port) for port in ports)
    return f"""
        table inet {TABLE} {{
          set ports {{ type inet_service; elements = {{ {known} }} }}
          set traffic {{
            type ipv4_addr . inet_service; size 65535; flags dynamic; counter
          }}
          chain output {{
            type filter hook output priority 50; policy accept;
            oifname "lo" return
            meta nfproto != ipv4 return
            tcp dport 22 return
            tcp sport 22 return
            tcp dport @ports add @traffic {{ ip daddr . tcp dport }} return
            tcp sport @ports add @traffic {{ ip daddr . tcp sport }} return
            add @traffic {{ ip daddr . 0 }}
          }}
        }}
    """


def has_table() -> bool:
    """True when the counters are there."""
    if not shutil.which("nft"):
        return False
    words = ["nft", "list", "set", "inet", TABLE, "traffic"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def make_table(ports: Iterable[int]) -> None:
    """The counters, from zero."""
    run(["nft", "-f", "-"], stdin=table(ports))


def traffic_now() -> dict[str, list[int]]:
    """'ADDRESS PORT' -> bytes and packets since the table was made."""
    said = json.loads(run(["nft", "-j", "list", "set", "inet", TABLE, "traffic"]))
    found = {}
    for entry in said["nftables"]:
        for element in entry.get("set", {}).get("elem", []):
            address, port = element["elem"]["val"]["concat"]
            counter = element["elem"]["counter"]
            found[f"{address} {port}"] = [counter["bytes"], counter["packets"]]
    return found


# ---------------------------------------------------------------- CPU and memory

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def processes_of(groups: Mapping[str, str]) -> dict[str, list[int]]:
    """Process ids by unit, found by the units' control groups as the processes name them.

    It reads the same under either version of control groups, wherever they are mounted.
    """
    found: dict[str, list[int]] = {name: [] for name in groups}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cgroup", encoding="utf-8") as file:
                paths = {line.rstrip("\n").split(":", 2)[2] for line in file}
        except (OSError, IndexError):
            continue
        for name, group in groups.items():
            if group and any(path == group or path.startswith(f"{group}/") for path in paths):
                found[name].append(int(entry))
    return found


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, its children that have ended included."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) * TICK_S


def memory_of(pid: int) -> int:
    """Its proportional share of memory in bytes: pages that n processes share count 1/n."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def usage_now(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """CPU seconds of each unit since it was started, and its memory."""
    units = show(names)
    groups = {name: unit["ControlGroup"] for name, unit in units.items()}
    found = {}
    for name, pids in processes_of(groups).items():
        cpu, memory = 0.0, 0
        for pid in pids:
            try:
                cpu += cpu_of(pid)
                memory += memory_of(pid)
            except (OSError, ValueError, IndexError):  # it has ended meanwhile
                continue
        found[name] = {"main": units[name]["MainPID"], "cpu_s": round(cpu, 3), "memory": memory}
    return found


# ---------------------------------------------------------------- messages

# What each queue has taken in since it was made, and what of it is left: kept by RabbitMQ
# anyway, so that nothing needs to be switched on.  The last are the whole broker's counters,
# which know of queues that are gone, too.
ASK_RABBITMQ = """
{[catch begin
    {resource, _, queue, Name} = amqqueue:get_name(Q),
    [{messages_ready, Ready}, {messages_unacknowledged, Unacked}, {backing_queue_status, Status}] =
      rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged, backing_queue_status]),
    {queue, binary_to_list(base64:encode(Name)), proplists:get_value(next_seq_id, Status),
     Ready, Unacked}
  end || Q <- rabbit_amqqueue:list()],
 [{total, maps:get(messages_routed_total, C, 0), maps:get(messages_delivered_total, C, 0),
   maps:get(messages_acknowledged_total, C, 0)}
  || {_, C} <- maps:to_list(rabbit_global_counters:overview())]}.
"""


def messages_now() -> dict[str, list[int]]:
    """Queue -> messages taken in, delivered and acknowledged; '' for the whole broker."""
    return read_messages(run(["rabbitmqctl", "--quiet", "eval", ASK_RABBITMQ]))


def read_messages(said: str) -> dict[str, list[int]]:
    """What RabbitMQ printed: Erlang's terms, on as many lines as it likes."""
    said = re.sub(r"\s+", "", said)
    found = {"": [0, 0, 0]}
    for name, *numbers in re.findall(r'\{queue,"([^"]*)",(\d+),(\d+),(\d+)\}', said):
        taken, ready, unacked = (int(number) for number in numbers)
        queue = base64.b64decode(name).decode(errors="replace")
        found[queue] = [taken, taken - ready, taken - ready - unacked]
    for total in re.findall(r"\{total,(\d+),(\d+),(\d+)\}", said):
        found[""] = [sum(pair) for pair in zip(found[""], map(int, total), strict=True)]
    return found


# ---------------------------------------------------------------- records of the services


def records(since: float, until: float) -> Iterator[str]:
    """Lines of the window: '@ UNIT PID' before those of each process; and what went wrong."""
    for path in sorted(glob.glob(f"{RECORDS}/*/*.records")):
        unit = path.split("/")[-2]
        with open(path, "rb") as file:
            text = file.read().decode(errors="replace")
        pid = os.path.basename(path).split("-")[0]
        yield f"@\t{unit}\t{pid}\n"
        for line in text[: text.rfind("\n") + 1].splitlines(keepends=True):
            if is_within(line.split("\t", 3), since, until):
                yield line
    for path in sorted(glob.glob(f"{RECORDS}/*/*.problems")):
        yield f"@\t{path.split('/')[-2]}\t{os.path.basename(path).split('-')[0]}\n"
        with open(path, encoding="utf-8", errors="replace") as file:
            yield file.readline().rstrip("\n") + "\n"


def is_within(fields: list[str], since: float, until: float) -> bool:
    """A call or a request by its start; statements, summed up, when any may be of the window."""
    try:
        if fields[0] in ("c", "r"):
            return since <= float(fields[1]) < until
        if fields[0] == "s":
            return float(fields[1]) < until and since < float(fields[2])
    except (IndexError, ValueError):
        return False
    return False


def forget_records() -> None:
    """What was written before the window; problems stay as long as their process."""
    for path in glob.glob(f"{RECORDS}/*/*.records"):
        os.unlink(path)
    for path in glob.glob(f"{RECORDS}/*/*.problems"):
        if not os.path.exists(f"/proc/{os.path.basename(path).split('-')[0]}"):
            os.unlink(path)


# ---------------------------------------------------------------- the window


def read_counters(args: Mapping[str, Any], failed: Callable[[Failure], None]) -> dict[str, Any]:
    """All that is read from outside the services; the quick ones first."""
    readers: dict[str, Callable[[], Any]] = {
        "usage": lambda: usage_now(args["units"]),
        "traffic": traffic_now,
        "messages": messages_now,
    }
    found: dict[str, Any] = {}
    for name, look in readers.items():
        if name not in args["wanted"] or (
            name == "messages" and "rabbitmq-server" not in args["units"]
        ):
            continue
        try:
            found[name] = look()
        except Failure as failure:
            failed(failure)
    return found


def start(args: Mapping[str, Any]) -> None:
    """The window may begin when this is through."""

    def failed(failure: Failure) -> None:
        raise failure

    if not os.path.isdir(RECORDS):
        raise Failure("the probes aren't laid down here")
    if "traffic" in args["wanted"] and not has_table():
        make_table(args["ports"])  # a host that was restarted has lost it
    forget_records()
    if os.path.exists(STOP):
        os.unlink(STOP)
    save(START, read_counters(args, failed))


def stop(args: Mapping[str, Any]) -> list[str]:
    """The window ends here; returns what couldn't be read."""
    problems: list[str] = []
    now = read_counters(args, lambda failure: problems.append(str(failure)))
    if os.path.isdir(RECORDS):
        save(STOP, {**now, "problems": problems})
    return problems


def save(path: str, data: Mapping[str, Any]) -> None:
    """Replace a file of ours in one step."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(data, file)
    os.replace(f"{path}.new", path)


def saved(path: str) -> dict[str, Any]:
    """What it holds; nothing where it is absent or damaged."""
    try:
        found: dict[str, Any] = json.loads(read(path))
    except (OSError, ValueError):
        return {}
    return found


def collect(args: Mapping[str, Any]) -> dict[str, Any]:
    """What there is of the window, and `problems`: what isn't."""
    now, before = saved(STOP), saved(START)
    problems: list[str] = list(now.get("problems", ()))
    if not now:  # nobody ended it: it ends now
        now = read_counters(args, lambda failure: problems.append(str(failure)))
    found: dict[str, Any] = {"problems": problems}
    for name, difference in (("usage", used), ("traffic", differences), ("messages", differences)):
        if name in now and name not in before:
            problems.append(f"{name} wasn't read here when the window began")
        elif name in now:
            found[name] = difference(before[name], now[name])
    if any(unit["probes"] for unit in args["units"].values()):
        wait = args["until"] + WRITTEN_AFTER_S - time.time()
        time.sleep(min(max(0.0, wait), 10))
        packed = gzip.compress("".join(records(args["since"], args["until"])).encode(), 6)
        found["records"] = base64.b64encode(packed).decode()
    return found


def differences(
    before: Mapping[str, list[int]], now: Mapping[str, list[int]]
) -> dict[str, list[int]]:
    """How far each counter came; one that began anew, or is new, came all its way."""
    found = {}
    for key, values in now.items():
        old = before.get(key, [0] * len(values))
        if values[0] < old[0]:
            old = [0] * len(values)
        if values != old:
            found[key] = [max(0, new - was) for new, was in zip(values, old, strict=True)]
    return found


def used(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """CPU over the window and memory at both ends; a unit that was restarted began at zero."""
    found = {}
    for name, usage in now.items():
        old = before.get(name, {"main": "", "cpu_s": 0.0, "memory": 0})
        began = old["cpu_s"] if old["main"] == usage["main"] else 0.0
        found[name] = {
            "cpu_s": round(max(0.0, usage["cpu_s"] - began), 3),
            "memory_bytes": usage["memory"],
            "memory_start_bytes": old["memory"],
        }
    return found


def main() -> None:
    """What Ansible calls."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True},
            "wanted": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "dict", "default": {}},
            "contents": {"type": "dict", "default": {}, "no_log": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "since": {"type": "float", "default": 0},
            "until": {"type": "float", "default": 0},
            "timeout_s": {"type": "int", "default": 180},
        }
    )
    args: dict[str, Any] = module.params
    try:
        if args["step"] == "collect":
            module.exit_json(changed=False, **collect(args))
        elif args["step"] == "start":
            start(args)
            module.exit_json(changed=False)
        elif args["step"] == "stop":
            module.exit_json(changed=False, problems=stop(args))
        installation = Installation(args)
        installation.remove() if args["step"] == "remove" else installation.run()
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.more)
    module.exit_json(changed=bool(installation.changes), changes=installation.changes)


if __name__ == "__main__":
    main()
