"""The root trees that emulated hosts share, each built once for its recipe."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from discovery_xp import files, software
from discovery_xp.errors import Failed
from discovery_xp.files import write_atomically
from discovery_xp.onhost.environment import STAMP, script, steps
from discovery_xp.places import cache
from discovery_xp.providers.local import cgroups
from discovery_xp.providers.local.recipes import (
    EXCLUDED,
    FILES,
    MARIADB,
    MASKED_UNITS,
    PACKAGES,
    SERVERS,
    SUITE,
    WITHOUT_MARIADB,
    Recipe,
    key,
)
from discovery_xp.software import Environment
from discovery_xp.testbeds.hosts import Progress
from discovery_xp.testbeds.testbed import Testbed, testbeds
from discovery_xp.wheels import Programs, beside

# Debian's keys, which apt on Ubuntu doesn't trust by itself.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The control group of all builders of a testbed.
GROUP = "image"


def _folder(image: str) -> Path:
    return cache() / "images" / image


def tree(image: str) -> Path:
    """The root tree of a built image, or the layer that it puts above its base."""
    return _folder(image) / "tree"


def trees(image: str) -> tuple[Path, ...]:
    """The tree that hosts stand on, and those below it, from the top."""
    base = _base(image)
    return (tree(image), *(trees(base) if base else ()))


def _base(image: str) -> str | None:
    """Return the image that one is a layer above; None for a whole tree, and what isn't there."""
    with contextlib.suppress(OSError, ValueError):
        description = json.loads((_folder(image) / "image.json").read_text())
        return str(description["base"]) if "base" in description else None
    return None


def is_cached(wanted: Recipe) -> bool:
    """True when the tree of today's recipe is there, where only we can have put it."""
    exists = all((path.parent / "image.json").exists() for path in trees(key(wanted)))
    if exists:
        _images()
    return exists


def serves(image: str | None, wanted: Recipe) -> bool:
    """True when hosts may stand on the tree `image`: it is there, with what is wanted."""
    if image is None or not all(path.is_dir() for path in trees(image)):
        return False
    _images()
    return not wanted.has_openstack or image == key(wanted)


def ensure(testbed: Testbed, wanted: Recipe, progress: Progress) -> str:
    """Build the tree of today's recipe unless it is there; returns its key.

    The build runs in the testbed's control groups, so that a killed run's builder is
    found by `destroy`.  Raises Failed with the builder's last lines.
    """
    image = key(wanted)
    if is_cached(wanted):
        return image
    if wanted is Recipe.CLOUD_WITHOUT_MARIADB:
        base = ensure(testbed, Recipe.CLOUD, progress)
        _ensure_built(testbed, wanted, progress, lambda building: _peel(testbed, building, base))
        return image
    if wanted.has_openstack and software.missing_wheels():
        progress("fetching OpenStack's and Rally's packages meanwhile", 0, 0)
    # pip waits for the network most of the time.
    fetching = (
        beside(software.ensure_all_wheels)
        if wanted.has_openstack
        else contextlib.nullcontext(_none)
    )
    with fetching as wait_for_wheels:
        _ensure_built(
            testbed, wanted, progress,
            lambda building: _build(testbed, building, wanted, progress, wait_for_wheels),
        )  # fmt: skip
    return image


def _ensure_built(
    testbed: Testbed, wanted: Recipe, progress: Progress, build: Callable[[Path], None]
) -> None:
    """Have `build` fill a folder that becomes the image's, alone and as a whole."""
    image, images = key(wanted), _images()
    with _build_lock(images, progress):
        if is_cached(wanted):  # another testbed built it while we waited
            return
        remove_unfinished()
        building = images / f".building-{image}"
        files.make_folder(building)
        try:
            build(building)
        except BaseException:
            cgroups.kill(testbed.name, GROUP)
            shutil.rmtree(building, ignore_errors=True)
            raise
        building.rename(_folder(image))
        _prune(images, keep={key(recipe) for recipe in Recipe})


def _none() -> None:
    """Wait for nothing."""


def _build(
    testbed: Testbed,
    building: Path,
    wanted: Recipe,
    progress: Progress,
    wait_for_wheels: Callable[[], None],
) -> None:
    """Make the tree and its description in the folder `building`."""
    target = building / "tree"
    progress("building the hosts' root tree (once for each recipe)", 0, 0)
    packages = PACKAGES + (software.debian_packages() if wanted.has_openstack else ())
    _bootstrap(testbed, packages, target, building / "build.log")
    _adapt(target)
    if wanted.has_openstack:
        if software.missing_wheels():
            progress("fetching OpenStack's and Rally's packages (once for each lock file)", 0, 0)
        wait_for_wheels()
        progress("installing OpenStack and Rally in it", 0, 0)
        with contextlib.ExitStack() as stack:
            # pip works on one processor: they are installed side by side.
            waits = [
                stack.enter_context(beside(functools.partial(_install, testbed, building, each)))
                for each in software.ENVIRONMENTS
            ]
            for wait in waits:
                wait()
        _clear_servers(target)
    _describe(building)


def _peel(testbed: Testbed, building: Path, base: str) -> None:
    """Make the layer above the tree `base` that has no MariaDB, in the folder `building`."""
    for name in ("tree", "work", "root"):
        files.make_folder(building / name)
    (building / "tree").chmod(0o755)  # what hosts have as their root
    log = building / "build.log"
    command = ["sh", "-ec", WITHOUT_MARIADB, "sh", str(tree(base)), str(building), *MARIADB]
    if _contained(testbed, f"{GROUP}/layer", command, log):
        raise Failed(
            f"MariaDB can't be taken out of the hosts' root tree: {_complaint(log, 'E:')}",
            f"see {log.name}, then try again",
        )
    shutil.rmtree(building / "work")
    (building / "root").rmdir()
    _describe(building, base)


def _images() -> Path:
    """The folder of all trees, made if need be, closed to others.

    The trees hold programs that run with root's rights, and get old; all that runs on hosts
    comes from them: raises Refused where others could change it.
    """
    images = cache() / "images"
    files.make_folder(images)
    files.require_ours(images, "choose another place with DISCOVERY_XP_CACHE")
    files.make_private(images)
    return images


@contextlib.contextmanager
def _build_lock(images: Path, progress: Progress) -> Iterator[None]:
    """Hold the right to build; say so where another process has it."""
    place = images / ".lock"
    if files.is_locked(place):
        progress("the hosts' root tree, which another command builds", 0, 0)
    with files.lock(place):
        yield


def remove_unfinished() -> None:
    """Remove what a killed build left."""
    images = cache() / "images"
    if images.is_dir():
        for left in images.glob(".building-*"):
            shutil.rmtree(left, ignore_errors=True)


def clean() -> None:
    """The same, unless a build is under way."""
    lock = cache() / "images" / ".lock"
    if not lock.exists():
        return
    with lock.open() as held, contextlib.suppress(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_unfinished()


def _bootstrap(testbed: Testbed, packages: Sequence[str], target: Path, log: Path) -> None:
    mirror = os.environ.get("DISCOVERY_XP_MIRROR")
    command = [
        "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Retries "3"',
        *(f"--dpkgopt=path-exclude={path}" for path in EXCLUDED),
        *([f"--keyring={KEYRING}"] if KEYRING.exists() else []),
        SUITE, str(target), *([mirror] if mirror else []),
    ]  # fmt: skip
    if _contained(testbed, f"{GROUP}/tree", command, log):
        raise Failed(
            f"the hosts' root tree can't be built: {_complaint(log, 'E:')}",
            "see that packages can be installed ('apt-get update'), then try again",
        )


def _install(
    testbed: Testbed, building: Path, environment: Environment, _programs: Programs
) -> None:
    """Install the locked wheels in an environment of their own, from the cache alone."""
    target, log = building / "tree", building / f"{environment.name}.log"
    place, wheels = environment.place, f"tmp/{environment.name}-wheels"
    shutil.copytree(environment.ensure_wheels(), target / wheels, copy_function=_link_or_copy)
    paths = [f"/{wheels}/{path.name}" for path in sorted((target / wheels).glob("*.whl"))]
    line = script(steps(place, paths, environment.program))
    group = f"{GROUP}/{environment.name}"
    if _contained(testbed, group, ["chroot", str(target), "sh", "-c", line], log):
        raise Failed(
            f"{environment.title} can't be installed in the hosts' root tree: "
            f"{_complaint(log, 'ERROR')}",
            f"see {log.name}, then try again",
        )
    shutil.rmtree(target / wheels)
    stamp = target / place.lstrip("/") / STAMP
    files.write_public(stamp, f"{environment.lock_digest}\n")


def _clear_servers(target: Path) -> None:
    """Nothing starts servers, and each deployment makes a database of its own."""
    units = target / "etc/systemd/system"
    for folder in (units, *units.glob("*.wants")):
        for unit in SERVERS:  # links that lead nowhere outside of the tree
            (folder / unit).unlink(missing_ok=True)
    shutil.rmtree(target / "var/lib/mysql", ignore_errors=True)
    (target / "var/lib/rabbitmq/.erlang.cookie").unlink(missing_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _contained(testbed: Testbed, group: str, command: Sequence[str], log: Path) -> int:
    """Run a builder in a control group of the testbed; return its exit code."""
    groups = cgroups.create(testbed.name, group)
    enter = "".join(f"echo $$ >{folder}/cgroup.procs; " for folder in groups)
    with log.open("a") as output:
        done = subprocess.run(
            # Mounts that the builder makes end with it, however it ends.
            ["unshare", "--mount", "--propagation", "private",
             "sh", "-ec", f'{enter} exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False,
            umask=0o022,  # the hosts' daemons read what it makes
        )  # fmt: skip
    cgroups.kill(testbed.name, group)
    return done.returncode


def _complaint(log: Path, sign: str) -> str:
    """Return the first lines of a builder's log that begin with `sign`, else just the last."""
    lines = [line.strip() for line in log.read_text().splitlines() if line.strip()]
    chosen = [line for line in lines if line.startswith(sign)]
    return " / ".join(chosen[:3] or lines[-3:]) or "it says nothing"


def _adapt(target: Path) -> None:
    units = target / "etc/systemd/system"
    for unit in MASKED_UNITS:
        link = units / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    for name, text in FILES.items():
        files.write_public(target / name, text)
    for host_key in (target / "etc/ssh").glob("ssh_host_*"):
        host_key.unlink()


def _describe(building: Path, base: str | None = None) -> None:
    """Write what a tree has; `base` is the image that it is a layer above."""
    status = (building / "tree/var/lib/dpkg/status").read_text()
    packages = {}
    for stanza in status.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " "
        )
        if "Package" in fields:
            packages[fields["Package"]] = fields.get("Version", "")
    description = {"suite": SUITE, "architecture": platform.machine(), "packages": packages}
    if base:
        description["base"] = base
    write_atomically(building / "image.json", json.dumps(description, indent=1) + "\n")


def _prune(images: Path, keep: set[str]) -> None:
    """Remove trees of earlier recipes that no testbed stands on, whatever its home."""
    used = set(keep)
    for name in testbeds():
        with contextlib.suppress(Exception):  # a damaged state names no image
            used.add(Testbed(name).load().image or "")
    used |= {_base(name) or "" for name in used}
    unused = {entry.name for entry in images.iterdir() if entry.is_dir()} - used
    for name in unused - _mounted(images, unused):
        shutil.rmtree(images / name, ignore_errors=True)


def _mounted(images: Path, names: set[str]) -> set[str]:
    """Those of the trees that some process on this machine sees below its root."""
    mounted: set[str] = set()
    for mounts in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            text = mounts.read_text()
            mounted |= {name for name in names - mounted if f"{images / name}/" in text}
    return mounted
