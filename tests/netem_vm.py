"""Runs shell commands on emulated hosts inside a virtual machine.

The kernel under the tests may lack the traffic shaping modules that the commands need
(``sch_netem`` above all). This module boots Debian's cloud kernel, which has them, under QEMU's
software emulation: the hosts are network namespaces of that machine, joined by bridges, and each
command line runs unchanged in the namespace of its host.

The clock of the machine is virtual: it advances with the instructions executed, and jumps over
the time in which the machine is idle. Delays measured inside therefore do not depend on how busy
the real machine is, and a command that only waits costs next to no real time.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import ipaddress
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DEBIAN_PACKAGES = ("qemu-system-x86", "iproute2", "iputils-ping", "fping")
"""What must be installed. The kernel and busybox are downloaded, never installed."""

_KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
_KERNEL_PACKAGE_GLOB = "linux-image-*-cloud-amd64_*.deb"

# Not busybox-static: its shell prefers its own applets to the programs in PATH, so that a plain
# `tc` or `ping` would never reach iproute2 or iputils.
_BUSYBOX_PACKAGE = "busybox"
_BUSYBOX_PACKAGE_GLOB = "busybox_*.deb"

_PROGRAMS = ("ip", "tc", "bridge", "ping", "fping")

_MODULES = (
    "act_mirred",
    "bridge",
    "cls_basic",
    "cls_matchall",
    "cls_u32",
    "ifb",
    "sch_htb",
    "sch_ingress",
    "sch_netem",
    "sch_prio",
    "sch_tbf",
    "veth",
)

_USR_LIB = Path("/usr/lib")

_QEMU = "qemu-system-x86_64"

# With icount, one instruction takes 2**shift ns of virtual time, and with sleep=off the time to
# the next timer passes at once when the machine is idle. Both keep the real load out of the delays.
_QEMU_OPTIONS = (
    *("-machine", "pc,accel=tcg,mem-merge=off"),
    *("-icount", "shift=1,sleep=off"),
    *("-m", "512"),
    *("-smp", "1"),
    *("-nic", "none"),
    *("-display", "none"),
    *("-monitor", "none"),
    "-nodefaults",
    "-no-reboot",
)

_KERNEL_OPTIONS = " ".join(
    (
        "console=ttyS0 loglevel=4",
        # Reboot at once after a panic, which -no-reboot turns into the end of QEMU.
        "panic=-1",
        # The virtual counter needs no second clock to watch it.
        "tsc=reliable",
        # The translated code of a program is reused only where its addresses are the same: this
        # makes starting a program several times faster.
        "nokaslr norandmaps",
        # Spare the boot its self-tests, and the calibration of a timer that the HPET replaces.
        "mitigations=off cryptomgr.notests noapictimer",
    )
)

_CONSOLE_LOG = "console.log"
_RESULTS_FILE = "results"
_QEMU_ERRORS = "qemu.err"
_CONSOLE_LINES_SHOWN = 40

_RESULT_FRAME = re.compile(r"RESULT:(\d+):([A-Za-z0-9+/=]*):([A-Za-z0-9+/=]*):END")

_COMMAND_TIMEOUT_S = 600
_MAX_ARGUMENT_BYTES = 128 * 1024 - 1

_INIT = """\
#!/usr/bin/busybox sh
/usr/bin/busybox --install -s /usr/lib/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/busybox
export HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp

exec 3>/dev/ttyS1
stty raw <&3

run_step() {
    ip netns exec "$(cat "$1/host")" busybox sh -c "$(cat "$1/command")" \\
        </dev/null >"$1/stdout" 2>"$1/stderr" 3>&-
    exit_code=$?
    {
        printf 'RESULT:%s:' "$exit_code"
        base64 -w 0 "$1/stdout"
        printf ':'
        base64 -w 0 "$1/stderr"
        printf ':END\\n'
    } >&3
}

if sh -ex /call/setup 3>&-; then
    printf 'READY\\n' >&3
    for step in /call/steps/*; do
        [ ! -d "$step" ] || run_step "$step"
    done
    printf 'DONE\\n' >&3
fi
exec 3>&-
poweroff -f
"""


# fping gives up, silently, if one of the ICMP protocols has no name.
_PROTOCOLS = """\
ip 0 IP
icmp 1 ICMP
tcp 6 TCP
udp 17 UDP
ipv6-icmp 58 IPv6-ICMP
"""


class VmError(Exception):
    """The virtual machine could not be prepared, or did not run every step."""


@dataclass(frozen=True)
class VmHost:
    """A host: a network namespace with one interface, named eth0 inside.

    `interface` is its address with the prefix (``10.64.1.2/24``). Hosts with the same network
    share a bridge and must name the same `gateway`; the machine's root namespace owns that
    address and routes between the bridges.
    """

    name: str
    interface: str
    gateway: str


@dataclass(frozen=True)
class Step:
    """A shell command line, and the name of the host on which it runs."""

    host: str
    command: str


@dataclass(frozen=True)
class StepResult:
    """What a step left: bytes that are not UTF-8 are replaced in `stdout` and `stderr`."""

    step: Step
    exit_code: int
    stdout: str
    stderr: str


def run_in_vm(
    hosts: Sequence[VmHost], steps: Sequence[Step], *, cache_dir: Path, timeout_s: float = 180
) -> list[StepResult]:
    """Boot a machine with these hosts, run the steps strictly in order, and return their results.

    A step that fails is a result like another, and does not stop the following ones.
    `cache_dir` keeps the downloads and the boot image for later calls, which may be concurrent.
    `timeout_s` limits the life of the machine in real time; preparing the image is not counted.

    Raises ValueError if the hosts or the steps are inconsistent, and VmError if a package or a
    program is missing, the machine cannot set up the hosts, panics, or exceeds its time. The
    QEMU process has ended when the call returns or raises, whatever the exception.
    """
    networks = _networks(hosts)
    _check_steps(hosts, steps)
    qemu = program(_QEMU)
    image = _boot_image(cache_dir)
    with tempfile.TemporaryDirectory(prefix="netem-vm-") as directory:
        workdir = Path(directory)
        initrd = workdir / "initrd"
        initrd.write_bytes(
            image.initrd.read_bytes() + _cpio(_call_entries(_setup_script(networks), steps))
        )
        command = [
            *(qemu, *_QEMU_OPTIONS),
            *("-kernel", str(image.kernel), "-initrd", str(initrd)),
            *("-append", _KERNEL_OPTIONS),
            *("-serial", f"file:{_CONSOLE_LOG}", "-serial", f"file:{_RESULTS_FILE}"),
        ]
        outcome = run_qemu(command, workdir, timeout_s)
        return read_results(workdir, steps, outcome)


# Hosts and steps


def _networks(hosts: Sequence[VmHost]) -> dict[ipaddress.IPv4Interface, list[VmHost]]:
    """The hosts of each network, by the gateway's address with the prefix of the network."""
    for name, uses in Counter(host.name for host in hosts).items():
        if uses > 1:
            raise ValueError(f"{uses} hosts are named {name!r}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"a host cannot be named {name!r}")
    networks: dict[ipaddress.IPv4Interface, list[VmHost]] = defaultdict(list)
    for host in hosts:
        network = ipaddress.IPv4Interface(host.interface).network
        if ipaddress.IPv4Address(host.gateway) not in network:
            raise ValueError(f"{host.name}: the gateway {host.gateway} is not in {network}")
        networks[ipaddress.IPv4Interface(f"{host.gateway}/{network.prefixlen}")].append(host)
    _check_addresses(networks)
    return dict(networks)


def _check_addresses(networks: Mapping[ipaddress.IPv4Interface, Sequence[VmHost]]) -> None:
    """Refuse networks that overlap, and addresses that are used twice."""
    gateways = list(networks)
    for index, gateway in enumerate(gateways):
        for other in gateways[:index]:
            if gateway.network.overlaps(other.network):
                raise ValueError(f"the networks of the gateways {gateway} and {other} overlap")
    addresses = Counter(gateway.ip for gateway in gateways)
    for host_list in networks.values():
        addresses.update(ipaddress.IPv4Interface(host.interface).ip for host in host_list)
    for address, uses in addresses.items():
        if uses > 1:
            raise ValueError(f"the address {address} is used {uses} times")


def _check_steps(hosts: Sequence[VmHost], steps: Sequence[Step]) -> None:
    """Refuse steps on unknown hosts, and commands that cannot be an argument of ``sh -c``."""
    names = {host.name for host in hosts}
    for step in steps:
        if step.host not in names:
            raise ValueError(f"a step runs on {step.host!r}, which is not a host")
        if "\0" in step.command or len(step.command.encode()) > _MAX_ARGUMENT_BYTES:
            raise ValueError(
                f"a command for {step.host} holds a NUL or exceeds {_MAX_ARGUMENT_BYTES} bytes"
            )


def _setup_script(networks: Mapping[ipaddress.IPv4Interface, Sequence[VmHost]]) -> str:
    """The script that loads the modules and creates the hosts and their bridges."""
    root = ["link set lo up"]
    inside: list[str] = []
    for bridge, (gateway, hosts) in enumerate(networks.items()):
        root += [
            f"link add br{bridge} type bridge",
            f"address add {gateway} dev br{bridge}",
            f"link set br{bridge} up",
        ]
        for position, host in enumerate(hosts):
            port = f"port{bridge}.{position}"
            root += [
                f"netns add {host.name}",
                f"link add {port} type veth peer name eth0 netns {host.name}",
                f"link set {port} master br{bridge} up",
            ]
            lines = [
                "link set lo up",
                f"address add {host.interface} dev eth0",
                "link set eth0 up",
                f"route add default via {host.gateway}",
            ]
            inside.append(_ip_batch(f"ip -n {host.name}", lines))
    return "".join(
        [
            f"modprobe -a {' '.join(_MODULES)}\n",
            "echo 1 >/proc/sys/net/ipv4/ip_forward\n",
            _ip_batch("ip", root),
            *inside,
        ]
    )


def _ip_batch(ip: str, lines: Iterable[str]) -> str:
    """Shell text that has one process run all the lines: starting one is slow in emulation."""
    return "\n".join([f"{ip} -batch - <<'END'", *lines, "END", ""])


def _call_entries(setup_script: str, steps: Sequence[Step]) -> Iterator[_Entry]:
    """What one call adds to the boot image."""
    yield _file("call/setup", setup_script.encode())
    for index, step in enumerate(steps):
        yield _file(f"call/steps/{index:06}/host", step.host.encode())
        yield _file(f"call/steps/{index:06}/command", step.command.encode())


# Running the machine


def run_qemu(command: Sequence[str], workdir: Path, timeout_s: float) -> str:
    """Run QEMU until it ends or its time is over, and tell in words which of the two it was."""
    # The kernel ends QEMU if this process dies without a chance to do it.
    leashed = [program("setpriv"), "--pdeathsig", "KILL", "--", *command]
    with (workdir / _QEMU_ERRORS).open("wb") as errors:
        process = subprocess.Popen(
            leashed, cwd=workdir, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return f"was ended after {timeout_s:g} s"
        finally:
            process.kill()
            process.wait()
    return f"ended (QEMU's exit code: {status})"


def read_results(workdir: Path, steps: Sequence[Step], outcome: str) -> list[StepResult]:
    """The result of every step, or VmError if the machine did not get through all of them."""
    lines = _text(workdir / _RESULTS_FILE).splitlines()
    frames = [match for line in lines if (match := _RESULT_FRAME.fullmatch(line))]
    if lines[-1:] == ["DONE"] and len(frames) == len(steps):
        return [_step_result(step, frame) for step, frame in zip(steps, frames, strict=True)]
    if "READY" not in lines:
        during = "the boot or the set-up of the hosts"
    elif len(frames) < len(steps):
        step = steps[len(frames)]
        during = f"step {len(frames) + 1} of {len(steps)}, on {step.host}: {step.command[:200]}"
    else:
        during = "its shutdown"
    raise VmError(f"the virtual machine {outcome} during {during}\n{_diagnostics(workdir)}")


def _step_result(step: Step, frame: re.Match[str]) -> StepResult:
    exit_code, *outputs = frame.groups()
    stdout, stderr = (base64.b64decode(output).decode(errors="replace") for output in outputs)
    return StepResult(step, int(exit_code), stdout, stderr)


def _diagnostics(workdir: Path) -> str:
    """The errors of QEMU and the end of the console, for an error message."""
    console = _text(workdir / _CONSOLE_LOG).splitlines()[-_CONSOLE_LINES_SHOWN:]
    return "\n".join([*_text(workdir / _QEMU_ERRORS).splitlines(), "Console:", *console])


def _text(path: Path) -> str:
    """What a file holds, nothing if it was never created."""
    return path.read_bytes().decode(errors="replace") if path.exists() else ""


# The boot image


@dataclass(frozen=True)
class _BootImage:
    kernel: Path
    initrd: Path


def _boot_image(cache_dir: Path) -> _BootImage:
    """The image made of the packages at hand, built unless `cache_dir` has it already."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    kernel_package = _downloaded(_KERNEL_PACKAGE_GLOB, _kernel_package_name, cache_dir)
    busybox_package = _downloaded(_BUSYBOX_PACKAGE_GLOB, lambda: _BUSYBOX_PACKAGE, cache_dir)
    ingredients = [kernel_package.name, busybox_package.name, _tool_versions()]
    recipe = Path(__file__).read_bytes()
    key = hashlib.sha256("\n".join(ingredients).encode() + recipe).hexdigest()[:16]
    directory = cache_dir / f"image-{key}"
    if not directory.exists():
        _build_image(directory, kernel_package, busybox_package)
    return _BootImage(directory / "kernel", directory / "initrd")


def _build_image(directory: Path, kernel_package: Path, busybox_package: Path) -> None:
    """Build the image aside and move it to `directory`, where another call may have put one."""
    with tempfile.TemporaryDirectory(prefix="build-", dir=directory.parent) as scratch_name:
        scratch = Path(scratch_name)
        unpacked, image = scratch / "unpacked", scratch / "image"
        image.mkdir()
        for package in (kernel_package, busybox_package):
            output(["dpkg-deb", "-x", str(package), str(unpacked)])
        busybox = unpacked / "bin/busybox"
        kernel = _only(unpacked.glob("boot/vmlinuz-*"))
        shutil.copyfile(kernel, image / "kernel")
        modules = unpacked / "lib/modules" / kernel.name.removeprefix("vmlinuz-")
        output([str(busybox), "depmod", "-b", str(unpacked), modules.name])
        entries = [*_base_entries(), *_program_entries(busybox), *_module_entries(modules)]
        archive = gzip.compress(_cpio(entries), compresslevel=6, mtime=0)
        # The kernel looks for the next archive at a multiple of four bytes.
        (image / "initrd").write_bytes(archive + bytes(-len(archive) % 4))
        try:
            image.rename(directory)
        except OSError:
            if not directory.exists():
                raise


def _base_entries() -> Iterator[_Entry]:
    """The skeleton of a Debian root file system, and the program that runs first."""
    for directory in ("dev", "proc", "sys", "run", "tmp", "root", "usr/lib/busybox", "usr/sbin"):
        yield _Entry(directory, stat.S_IFDIR | 0o755)
    for name in ("bin", "sbin", "lib", "lib64"):
        yield _Entry(name, stat.S_IFLNK | 0o777, f"usr/{name}".encode())
    yield _Entry("usr/bin/sh", stat.S_IFLNK | 0o777, b"busybox")
    yield _file("init", _INIT.encode(), 0o755)
    yield _file("etc/protocols", _PROTOCOLS.encode())


def _program_entries(busybox: Path) -> Iterator[_Entry]:
    """The programs with their shared libraries, and the delay distributions of tc."""
    programs = [Path(program(name)) for name in _PROGRAMS]
    yield _file("usr/bin/busybox", busybox.read_bytes(), 0o755)
    libraries = {library for program in (busybox, *programs) for library in _libraries(program)}
    distributions = sorted({*_USR_LIB.glob("tc/*.dist"), *_USR_LIB.glob("*/tc/*.dist")})
    for path in (*programs, *sorted(libraries), *distributions):
        # The directories /bin, /lib and so on are links to those in /usr, here as in Debian.
        place = path.parent.resolve() / path.name
        yield _file(str(place.relative_to("/")), path.read_bytes(), 0o755)


def _libraries(program: Path) -> set[Path]:
    """The shared libraries that a program loads, and its loader."""
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", output(["ldd", str(program)]))}


def _module_entries(modules: Path) -> Iterator[_Entry]:
    """The modules with those they depend on, and what modprobe reads, for a modules directory."""
    dependencies: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        dependencies[path] = needed.split()
    by_name = {PurePosixPath(path).stem: path for path in dependencies}
    builtin_index = (modules / "modules.builtin").read_bytes()
    builtin = {PurePosixPath(line).stem for line in builtin_index.decode().splitlines()}
    missing = set(_MODULES) - by_name.keys() - builtin
    if missing:
        raise VmError(f"{modules.name} lacks the modules {', '.join(sorted(missing))}")
    wanted: dict[str, list[str]] = {}
    pending = [by_name[name] for name in _MODULES if name in by_name]
    while pending:
        path = pending.pop()
        if path not in wanted:
            wanted[path] = dependencies[path]
            pending += dependencies[path]
    place = f"usr/lib/modules/{modules.name}"
    for path in wanted:
        yield _file(f"{place}/{path}", (modules / path).read_bytes())
    index = "".join(f"{path}: {' '.join(needed)}\n" for path, needed in wanted.items())
    yield _file(f"{place}/modules.dep", index.encode())
    yield _file(f"{place}/modules.builtin", builtin_index)


# Packages and programs


def _downloaded(pattern: str, name: Callable[[], str], cache_dir: Path) -> Path:
    """The newest package in `cache_dir` that fits the pattern; if none does, download `name()`."""
    cached = sorted(cache_dir.glob(pattern), key=lambda path: path.stat().st_mtime)
    if cached:
        return cached[-1]
    try:
        return _download(name(), cache_dir)
    except VmError:
        # The package lists may be absent or outdated.
        output(["apt-get", "update"])
        return _download(name(), cache_dir)


def _download(package: str, cache_dir: Path) -> Path:
    """Download a package from the configured Debian mirrors into `cache_dir`."""
    with tempfile.TemporaryDirectory(prefix="download-", dir=cache_dir) as directory:
        # Root's directory is closed to the user that apt would switch to.
        output(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], directory)
        package_file = _only(Path(directory).glob("*.deb"))
        return package_file.rename(cache_dir / package_file.name)


def _kernel_package_name() -> str:
    """The package that holds the kernel for which the meta package stands."""
    depends = output(["apt-cache", "depends", _KERNEL_META_PACKAGE])
    names = re.findall(r"linux-image-\d\S*-cloud-amd64", depends)
    if not names:
        raise VmError(f"apt knows no kernel for {_KERNEL_META_PACKAGE}")
    return str(names[0])


def _tool_versions() -> str:
    """The installed versions of the packages whose programs go into the image."""
    return output(["dpkg-query", "-W", *DEBIAN_PACKAGES])


def program(name: str) -> str:
    """Where a program is installed."""
    path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if path is None:
        raise VmError(f"{name} is not installed; see locks/debian-*.txt for the packages")
    return path


def output(command: Sequence[str], directory: str | None = None) -> str:
    """What a command prints; VmError if it is absent, fails, or does not end."""
    try:
        return subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=_COMMAND_TIMEOUT_S,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise VmError(f"{' '.join(command)} failed: {error.stderr or error.stdout}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VmError(f"{' '.join(command)} failed: {error}") from error


def _only(paths: Iterable[Path]) -> Path:
    """The single path among those given, or VmError."""
    found = list(paths)
    if len(found) != 1:
        raise VmError(f"one file was expected, not {len(found)}: {found}")
    return found[0]


# The archive format that the kernel unpacks


@dataclass(frozen=True)
class _Entry:
    """A member of an archive: `mode` has the file type, `data` is the target of a link."""

    path: str
    mode: int
    data: bytes = b""


def _file(path: str, data: bytes, permissions: int = 0o644) -> _Entry:
    return _Entry(path, stat.S_IFREG | permissions, data)


def _cpio(entries: Iterable[_Entry]) -> bytes:
    """An archive in the newc format; directories that the entries need are added."""
    members = [*_with_parents(entries), _Entry("TRAILER!!!", 0)]
    return b"".join(_cpio_member(inode, entry) for inode, entry in enumerate(members, 1))


def _with_parents(entries: Iterable[_Entry]) -> Iterator[_Entry]:
    """The entries, each path once, after the directories that lead to it."""
    known = {"."}
    for entry in entries:
        for parent in reversed(PurePosixPath(entry.path).parents):
            if str(parent) not in known:
                known.add(str(parent))
                yield _Entry(str(parent), stat.S_IFDIR | 0o755)
        if entry.path not in known:
            known.add(entry.path)
            yield entry


def _cpio_member(inode: int, entry: _Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links, size = 1, len(entry.data)
    owner = modified = device = checksum = 0
    fields = (
        *(inode, entry.mode, owner, owner, links, modified, size),
        *(device, device, device, device, len(name), checksum),
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
