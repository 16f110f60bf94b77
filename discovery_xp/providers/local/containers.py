"""Emulated hosts: systemd-nspawn system containers over the shared root tree.

A host's folder holds its disk (an image, see `disks`), the two folders where disk and root are
mounted for its own processes, `files` that it gets at each start, and its console.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from discovery_xp import coroutines, files
from discovery_xp.boundary.answers import printable
from discovery_xp.errors import Failed
from discovery_xp.planning.plan import Plan, PlannedHost
from discovery_xp.providers.local import cgroups, disks, fabric, image, merging
from discovery_xp.providers.local.cgroups import Bounds
from discovery_xp.providers.local.run import run
from discovery_xp.testbeds.testbed import Testbed

# More at once only makes each of them slower, and the last ones time out.
BOOTING_AT_ONCE = 64
# What a host says beyond that is lost: its console must not fill the machine's disk.
CONSOLE_BYTES = 256 * 2**10
# So much of it is looked at, from its end.
_TAIL_BYTES = 10_000


def group(host: str) -> str:
    """Name of a host's control group."""
    return f"host.{host}"


def folder(testbed: Testbed, host: str) -> Path:
    """A host's folder: its disk and its console."""
    return testbed.folder / "hosts" / host


def disk(testbed: Testbed, host: str) -> Path:
    """The image of a host's disk."""
    return folder(testbed, host) / "disk.img"


def make_keys(testbed: Testbed) -> None:
    """One key to log in, and one key that all hosts of the testbed show."""
    testbed.make_folder()
    for name in ("login_key", "host_key"):
        path = testbed.folder / name
        if path.exists() and path.with_suffix(".pub").exists():
            continue
        path.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name} of {testbed.name}",
             "-f", str(path)])  # fmt: skip


def prepare(testbed: Testbed, plan: Plan, host: PlannedHost) -> None:
    """Lay out a host's disk and its own files; what it wrote in an earlier life stays."""
    own = folder(testbed, host.name)
    if (own / "upper").is_dir():
        raise Failed(
            f"'{testbed.name}' was made by an earlier version, without quotas",
            f"'discovery-xp destroy --testbed {testbed.name}', then make it again",
        )
    for name in ("mount", "root"):
        files.make_folder(own / name)
    size = disks.size_bytes(host.limit.disk_bytes, host.roles, own)
    disks.make(disk(testbed, host.name), size)
    shutil.rmtree(own / "files", ignore_errors=True)
    upper = own / "files/upper"
    # The host's daemons drop their rights: they have to get through its root folder.
    for name in ("", "etc", "etc/ssh", "etc/systemd", "etc/systemd/system.conf.d"):
        files.make_folder(upper / name, files.PUBLIC_FOLDER)
    for name in ("root", "root/.ssh"):
        files.make_folder(upper / name)
    machine_id = hashlib.sha256(f"{testbed.name}/{host.name}".encode()).hexdigest()[:32]
    texts = {
        **({merging.FILE: merging.FILE_TEXT} if merges(plan) else {}),
        "etc/hostname": f"{host.name}\n",
        "etc/hosts": _hosts_file(plan),
        "etc/machine-id": f"{machine_id}\n",
        "etc/ssh/ssh_host_ed25519_key.pub": (testbed.folder / "host_key.pub").read_text(),
    }
    for name, text in texts.items():
        files.write_public(upper / name, text)
    secret = {
        "root/.ssh/authorized_keys": (testbed.folder / "login_key.pub").read_text(),
        "etc/ssh/ssh_host_ed25519_key": (testbed.folder / "host_key").read_text(),
    }
    for name, text in secret.items():
        files.write_atomically(upper / name, text)


def merges(plan: Plan) -> bool:
    """Say whether equal pages of the memory of a plan's hosts are merged on this machine."""
    return plan.merge_memory and merging.obstacle() is None


def wipe(testbed: Testbed, host: PlannedHost) -> None:
    """Forget all that a stopped host wrote."""
    shutil.rmtree(folder(testbed, host.name), ignore_errors=True)


def _hosts_file(plan: Plan) -> str:
    lines = ["127.0.0.1 localhost"]
    lines += [f"{host.address} {host.name}" for host in plan.hosts]
    return "\n".join(lines) + "\n"


def start(
    testbed: Testbed, host: PlannedHost, root_trees: Sequence[Path], merge: bool = False
) -> None:
    """Start a host, detached from this process; it is up when ssh answers.

    With `merge`, equal pages of its memory are merged, see `merging`.
    """
    own = folder(testbed, host.name)
    groups = cgroups.create(testbed.name, group(host.name), Bounds.of(host.limit))
    device, device_path = disks.attach(disk(testbed, host.name))
    try:
        starting = script(own, root_trees, device_path, groups)
        _start(testbed, host, groups, device, starting, merge)
    finally:
        os.close(device)


def script(own: Path, root_trees: Sequence[Path], device: Path, groups: Sequence[Path]) -> str:
    """What makes a host's root, in sh; its arguments are the command to run then.

    The mounts are for a namespace of their own: they end with the host, however it ends.
    """
    disk, root = shlex.quote(str(own / "mount")), shlex.quote(str(own / "root"))
    files = shlex.quote(str(own / "files"))
    return "; ".join(
        [
            "set -e",
            "umask 022",
            *(f"echo $$ >{folder_}/cgroup.procs" for folder_ in groups),
            "mkdir -p /run/systemd",
            "mount -t tmpfs -o mode=755 tmpfs /run/systemd",
            f"mount -t ext4 -o {disks.MOUNT_OPTIONS} {device} {disk}",
            # The kernel refuses a work directory that another overlay left in use.
            f"rm -rf {disk}/work",
            f"mkdir -m 700 {disk}/work",
            copy_command(files, disk),
            f"mount -t overlay overlay -o lowerdir={shlex.quote(':'.join(map(str, root_trees)))}"
            f",upperdir={disk}/upper,workdir={disk}/work {root}",
            'exec "$@" </dev/null',
        ]
    )


def copy_command(source: str, disk: str) -> str:
    """Copy what a host is given onto its disk, in sh; both are quoted.

    The host may have put links there that lead to this machine's files: a file's name is
    removed before it is written, and a link in place of a folder ends the host's start.
    """
    return f"cp -a --remove-destination {source}/. {disk}/"


def _start(
    testbed: Testbed,
    host: PlannedHost,
    groups: Sequence[Path],
    device: int,
    script: str,
    merge: bool,
) -> None:
    own = folder(testbed, host.name)
    network = f"/run/netns/{fabric.host_namespace(testbed.name, host.name)}"
    nspawn = [
        # Enter it first: nspawn mounts /sys before it joins, and /sys shows the network of
        # whoever mounted it.
        "nsenter", f"--net={network}",
        "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
        f"--directory={own / 'root'}",
        f"--machine={_machine_name(testbed.name, host.name)}",
        f"--hostname={host.name}",
        f"--network-namespace-path={network}",
        "--capability=CAP_NET_ADMIN",  # its network is its own: tc and nftables are for it to use
        "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=pipe",
    ]  # fmt: skip
    if merge:
        nspawn = merging.marked(nspawn)
    reader, writer = os.pipe()
    try:
        # Apart, so that nspawn can hand the host's controllers on to the systemd in it.
        keep_console(own / "console.log", reader, cgroups.leaves(groups, "console"))
        subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *nspawn],
            stdin=device,  # open until it is mounted
            stdout=writer,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            # Servers tune net.* as on a machine of their own; the rest of /proc/sys is shared.
            env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
        )
    finally:
        os.close(reader)
        os.close(writer)


def keep_console(log: Path, reader: int, groups: Sequence[Path]) -> subprocess.Popen[bytes]:
    """Have a process write the first of what comes from `reader` to `log`, and drop the rest."""
    script = "; ".join(
        [
            *(f"echo $$ >{folder_}/cgroup.procs" for folder_ in groups),
            f"head -c {CONSOLE_BYTES}",
            "exec cat >/dev/null",
        ]
    )
    log.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(log, flags, files.PRIVATE_FILE)
    try:
        return subprocess.Popen(
            ["sh", "-c", script],
            stdin=reader,
            stdout=descriptor,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(descriptor)


def _machine_name(testbed: str, host: str) -> str:
    """nspawn's own name for it, unlike any other on this machine; 64 characters at most."""
    digest = hashlib.sha256(f"{testbed}/{host}".encode()).hexdigest()[:8]
    return f"dxp-{digest}-{host}"[:63].rstrip("-")


def stop(testbed: Testbed, host: PlannedHost) -> None:
    """End a host as a power cut would."""
    cgroups.kill(testbed.name, group(host.name))


def is_running(testbed: Testbed, host: PlannedHost) -> bool:
    """True while the host has processes."""
    return bool(cgroups.processes(testbed.name, group(host.name)))


def init_of(testbed: Testbed, host: PlannedHost) -> int | None:
    """This machine's number of the host's first process, None where it has none."""
    for pid in cgroups.processes(testbed.name, group(host.name)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("NSpid:") and len(line.split()) > 2 and line.split()[-1] == "1":
                    return pid
    return None


def console_tail(testbed: Testbed, host: str, lines: int = 3) -> str:
    """Return the last words of a host's console, on one line; the host may write without end."""
    with contextlib.suppress(OSError), (folder(testbed, host) / "console.log").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = file.read(_TAIL_BYTES).decode(errors="replace")
        words = [line.strip() for line in text.splitlines() if line.strip()]
        return printable(" / ".join(words[-lines:])[-500:])
    return ""


def boot(
    testbed: Testbed,
    hosts: Sequence[PlannedHost],
    image_key: str,
    booted: Callable[[int], None],
    merge: bool = False,
) -> None:
    """Start hosts and wait until ssh answers on each; `booted` gets their number so far.

    With `merge`, equal pages of their memory are merged.

    Raises Failed with the names and consoles of those that didn't come up.
    """
    coroutines.run(_boot(testbed, hosts, image.trees(image_key), booted, merge))


async def _boot(
    testbed: Testbed,
    hosts: Sequence[PlannedHost],
    root_trees: Sequence[Path],
    booted: Callable[[int], None],
    merge: bool,
) -> None:
    places = asyncio.Semaphore(BOOTING_AT_ONCE)
    done = 0
    lost: list[str] = []

    async def one(host: PlannedHost) -> None:
        nonlocal done
        async with places:
            start(testbed, host, root_trees, merge)
            if not await _wait_for_ssh(host, 90.0, lambda: is_running(testbed, host)):
                lost.append(host.name)
                return
            done += 1
            booted(done)

    await asyncio.gather(*(one(host) for host in hosts))
    if lost:
        words = console_tail(testbed, lost[0])
        raise Failed(
            f"{len(lost)} of {len(hosts)} hosts don't answer over ssh ({', '.join(lost[:5])}); "
            f"the console of {lost[0]} ends with: {words or 'nothing'}",
            "run 'up' again to start them anew, or 'destroy'",
        )


async def _wait_for_ssh(host: PlannedHost, limit_s: float, alive: Callable[[], bool]) -> bool:
    from discovery_xp.testbeds.remote import (
        ssh_answers,  # it loads Ansible, which `destroy` goes without
    )

    deadline = time.monotonic() + limit_s
    grace = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        if await ssh_answers(host, 5.0):
            return True
        # A host that never shows up in its control group died at its start.
        if time.monotonic() > grace and not alive():
            return False
        await asyncio.sleep(0.25)
    return False
