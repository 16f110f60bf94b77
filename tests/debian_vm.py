"""Runs shell commands on an ordinary Debian 12, inside a virtual machine.

The machine has what a fresh Debian server has and the kernel under the tests may lack: systemd
as the first process, control groups version 2, and a kernel with all its modules. This checkout,
its Python environment and the root tree of the emulated hosts are at the same places as outside,
so that our command line runs there unchanged and offline.

Everything is emulated in software: commands take much longer than on a real machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from discovery_xp.providers.local import cgroups, image, recipes
from discovery_xp.providers.local.recipes import Recipe
from discovery_xp.testbeds.testbed import Testbed
from tests.netem_vm import Step, StepResult, output, program, read_results, run_qemu
from tests.real.machine import LOCK

CHECKOUT = Path(__file__).resolve().parents[1]

_SUITE = "bookworm"
_PYTHON_OF_SUITE = (3, 11)
_SYSTEM_PACKAGES = ("linux-image-cloud-amd64", "systemd-sysv", "udev", "kmod", "dbus", "python3")
_EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")

_FROM_CHECKOUT = (
    *("discovery_xp", "topologies", "locks", "xp"),
    *("pyproject.toml", "rome/pyproject.toml"),
)

_DISK_SIZE = "8G"  # sparse: what the machine doesn't write takes no room
_STEP_LIMIT_S = 300

# With icount, one instruction takes 2**shift ns of the machine's time: how busy the real one is
# doesn't show in delays.  Idle times pass as they do outside, since disks answer in real time.
_QEMU_OPTIONS = (
    *("-machine", "pc,accel=tcg,mem-merge=off"),
    *("-icount", "shift=1,sleep=on"),
    *("-smp", "1"),
    *("-m", "3072"),
    *("-nic", "none"),
    *("-display", "none"),
    *("-monitor", "none"),
    "-nodefaults",
    "-no-reboot",
)

_KERNEL_OPTIONS = " ".join(
    (
        "root=/dev/vda rw console=ttyS0 quiet",
        # Reboot at once after a panic, which -no-reboot turns into the end of QEMU.
        "panic=-1",
        # The translated code of a program is reused only where its addresses are the same.
        "nokaslr norandmaps mitigations=off",
        # The virtual counter needs no second clock to watch it.
        "tsc=reliable",
        # Log-in prompts would hang up the lines that we write to.
        "systemd.mask=serial-getty@ttyS0.service systemd.mask=getty@tty1.service",
        "systemd.show_status=0",
    )
)

_STEPS = "root/steps"

_UNIT = f"""\
[Unit]
Description=Run the steps, then power off
After=multi-user.target
[Service]
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb NO_COLOR=1
ExecStart=/bin/sh /{_STEPS}/run
"""

# What steps print goes to the console as well, for whoever has to find out what went wrong.
_RUN_STEPS = f"""\
exec 3>/dev/ttyS1 4>/dev/ttyS0
stty raw <&3
cd "$(cat /{_STEPS}/directory)"
printf 'READY\\n' >&3
for step in /{_STEPS}/*/; do
    echo "=== $(cat "$step/name")" >&4
    timeout --kill-after 5 {_STEP_LIMIT_S} sh "$step/command" \\
        </dev/null >"$step/stdout" 2>"$step/stderr" 3>&- 4>&-
    exit_code=$?
    {{ cat "$step/stdout" "$step/stderr"; echo "=== exit code $exit_code"; }} >&4
    {{
        printf 'RESULT:%s:' "$exit_code"
        base64 -w 0 "$step/stdout"
        printf ':'
        base64 -w 0 "$step/stderr"
        printf ':END\\n'
    }} >&3
done
printf 'DONE\\n' >&3
exec 3>&- 4>&-
poweroff --force
"""


def missing_requirement() -> str | None:
    """Why no such machine can be made here, in words; None when it can."""
    if os.geteuid() != 0:
        return "only root can make the machine's disk"
    if platform.machine() != "x86_64":
        return f"the machine's kernel is for x86_64, not {platform.machine()}"
    if sys.prefix == sys.base_prefix:
        return "Python runs outside a virtual environment, there is none to take along"
    if sys.base_prefix != "/usr" or sys.version_info[:2] != _PYTHON_OF_SUITE:
        return f"the virtual environment isn't one of Debian {_SUITE}'s Python"
    return None


def run_on_debian(
    steps: Mapping[str, str], *, cache_dir: Path, timeout_s: float = 600
) -> dict[str, StepResult]:
    """Boot the machine, run the steps strictly in order, and return their results by name.

    A step is a shell script; it runs as root in the checkout, under the same environment
    variables as a service's. One that fails is a result like another, and does not stop the
    following ones; one that takes too long is ended, with the exit code 124.

    `cache_dir` keeps Debian's root tree for later calls; the machine's disk is made for each
    call, and removed. A call waits for another one that uses the same directory.
    `timeout_s` limits the life of the machine in real time; preparing its disk is not counted.

    Raises VmError if a program is missing, the disk cannot be made, or the machine does not get
    through all steps. The QEMU process has ended when the call returns or raises.
    """
    qemu = program("qemu-system-x86_64")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _locked(cache_dir / ".lock"):
        system = _system_tree(cache_dir)
        with _emptied(cache_dir / "run") as workdir:
            _make_disk(workdir, system, steps)
            command = [
                *(qemu, *_QEMU_OPTIONS, "-append", _KERNEL_OPTIONS),
                *("-kernel", str(system / "vmlinuz"), "-initrd", str(system / "initrd.img")),
                *("-drive", "file=disk.img,if=virtio,format=raw,cache=unsafe"),
                *("-serial", "file:console.log", "-serial", "file:results"),
            ]
            outcome = run_qemu(command, workdir, timeout_s)
            unnamed = [Step("Debian", script) for script in steps.values()]
            return dict(zip(steps, read_results(workdir, unnamed, outcome), strict=True))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _emptied(directory: Path) -> Iterator[Path]:
    """A new directory in place of what a killed run may have left there; removed at the end."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# The root tree


def _system_tree(cache_dir: Path) -> Path:
    """Debian's root tree with all that our commands need of it, built unless it is cached."""
    recipe = [_SUITE, [*_SYSTEM_PACKAGES, *_runtime_packages()], _EXCLUDED]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
    tree = cache_dir / f"tree-{key}"
    if not tree.exists():
        for outdated in cache_dir.glob("tree-*"):
            shutil.rmtree(outdated)
        with _emptied(cache_dir / "building") as building:
            _bootstrap(building / "tree")
            (building / "tree").rename(tree)
    return tree


def _runtime_packages() -> list[str]:
    """What ./xp would install."""
    lines = (CHECKOUT / "locks/debian-runtime.txt").read_text().splitlines()
    return [words[0] for line in lines if (words := line.partition("#")[0].split())]


def _bootstrap(tree: Path) -> None:
    packages = ",".join([*_SYSTEM_PACKAGES, *_runtime_packages()])
    _output_contained(
        program("mmdebstrap"), "--mode=root", "--variant=minbase", f"--include={packages}",
        '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"',
        *(f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED),
        _SUITE, str(tree),
    )  # fmt: skip


def _hosts_image() -> Path:
    """The folder with the root tree of the emulated hosts, built unless it is cached."""
    # Others wait with destroying all testbeds of the machine, which would end the building.
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        return _ensured_image()


def _ensured_image() -> Path:
    if not image.is_cached(Recipe.HOSTS):
        builder = Testbed("debian-vm")
        try:
            image.ensure(builder, Recipe.HOSTS, lambda _stage, _done, _total: None)
        finally:
            cgroups.kill(builder.name)
    return image.tree(recipes.key(Recipe.HOSTS)).parent


# The disk


def _make_disk(workdir: Path, system: Path, steps: Mapping[str, str]) -> None:
    """Write `disk.img`: the root tree, overlaid with our files and directories."""
    ours, root = workdir / "ours", workdir / "root"
    for directory in (ours, root):
        directory.mkdir(mode=0o755)
    _copy_checkout(ours)
    _write_steps(ours, steps)
    environment, hosts_image = Path(sys.prefix), _hosts_image()
    taken_along = {
        environment: environment,
        hosts_image: Path("/var/cache/discovery-xp/images", hosts_image.name),
    }
    lines = [f"mount -t overlay -o {shlex.quote(f'lowerdir={ours}:{system}')} overlay {root}"]
    for source, place in taken_along.items():
        _within(ours, place).mkdir(parents=True, exist_ok=True)
        lines.append(shlex.join(["mount", "--bind", str(source), str(_within(root, place))]))
    disk = workdir / "disk.img"
    # Nothing on this disk outlives the run: no need for a journal.
    make = [program("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0"]
    lines.append(shlex.join([*make, "-d", str(root), str(disk), _DISK_SIZE]))
    _output_contained("sh", "-ec", "\n".join(lines))


def _within(root: Path, path: Path) -> Path:
    """Where the absolute `path` is when `root` is the root directory."""
    return root / path.relative_to("/")


def _copy_checkout(ours: Path) -> None:
    target = _within(ours, CHECKOUT)
    target.mkdir(parents=True)
    for name in _FROM_CHECKOUT:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, target / name)
        else:
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copy2(source, target / name)


def _write_steps(ours: Path, steps: Mapping[str, str]) -> None:
    files = {
        "etc/fstab": "",
        "etc/hostname": "debian\n",
        "etc/hosts": "127.0.0.1 localhost debian\n",
        "etc/systemd/system/steps.service": _UNIT,
        f"{_STEPS}/run": _RUN_STEPS,
        f"{_STEPS}/directory": f"{CHECKOUT}\n",
    }
    for number, (name, script) in enumerate(steps.items()):
        files[f"{_STEPS}/{number:06}/name"] = f"{name}\n"
        files[f"{_STEPS}/{number:06}/command"] = script
    for path, text in files.items():
        (ours / path).parent.mkdir(parents=True, exist_ok=True)
        (ours / path).write_text(text)
    wants = ours / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "steps.service").symlink_to("../steps.service")


def _output_contained(*command: str) -> str:
    """What a command prints; its mounts and its processes end with it, or with this process."""
    leash = [program("setpriv"), "--pdeathsig", "KILL", "--"]
    namespaces = ["--mount", "--propagation", "private", "--pid", "--kill-child", "--mount-proc"]
    return output([*leash, program("unshare"), *namespaces, "--", *command])
