"""The control machine may run Debian 13: what it fetches there fits the hosts' Debian 12.

Debian 13's root tree stands in for such a machine: its Python, pip and shell run there, with
this machine's kernel and network. The tree is cached, and the environment that ./xp makes in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery_xp import software
from discovery_xp.places import cache
from discovery_xp.providers.local import image
from tests.netem_vm import output, program

pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a root tree"),
]

CHECKOUT = Path(__file__).resolve().parents[2]
SUITE = "trixie"
TAKEN_ALONG = (
    *("discovery_xp", "locks", "playbooks", "topologies", "xp", "pyproject.toml", "setup.py"),
    *("LICENSE", "README.md", "rome/pyproject.toml"),
)
# Some of the packages that Debian 12's and 13's Python need different wheels of, one that has
# wheels for any Python of a machine, and one that comes as source only.
FETCHED = ("apsw", "hiredis", "markupsafe", "msgpack", "cryptography", "simplegeneric")

# $1 is the tree, $2 what is to be at this checkout's place; the rest runs there.
ENTER = f"""
tree=$1; ours=$2; shift 2
mount --bind "$tree" "$tree"
for folder in proc sys dev; do mount --rbind "/$folder" "$tree/$folder"; done
mkdir -p "$tree"{shlex.quote(str(CHECKOUT))}
mount --bind "$ours" "$tree"{shlex.quote(str(CHECKOUT))}
# Whom this machine trusts, and asks for names.
for place in /etc/ssl /usr/share/ca-certificates /usr/local/share/ca-certificates; do
    [ ! -d "$place" ] || {{ mkdir -p "$tree$place"; mount --bind "$place" "$tree$place"; }}
done
cp --dereference /etc/resolv.conf "$tree/etc/resolv.conf"
cd "$tree"
exec chroot "$tree" sh -ec 'cd "$1"; shift; exec "$@"' sh {shlex.quote(str(CHECKOUT))} "$@"
"""

FETCH = """
import sys
from pathlib import Path
from discovery_xp import wheels
assert sys.version_info[:2] == (3, 13), sys.version
wheels.fetch(Path(sys.argv[1]), Path(sys.argv[2]), wheels.Programs())
"""


class DebianThirteen:
    """Runs commands in the tree, at this checkout's place."""

    def __init__(self, tree: Path, ours: Path) -> None:
        self.tree, self.ours = tree, ours

    def run(self, *command: str) -> str:
        """Run a command; return what it prints."""
        kept = ("PIP_", "HTTP", "http", "NO_PROXY", "no_proxy")
        given = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        done = subprocess.run(
            [*contained(), "sh", "-ec", ENTER, "sh", str(self.tree), str(self.ours), *command],
            env={**given, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                 "LANG": "C.UTF-8", "DISCOVERY_XP_VENV": "/root/environment"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def contained() -> list[str]:
    """Return what has a command's mounts and processes end with it, and it with this process."""
    return [
        *(program("setpriv"), "--pdeathsig", "KILL", "--"),
        *(program("unshare"), "--mount", "--propagation", "private"),
        *("--pid", "--kill-child", "--mount-proc", "--"),
    ]


@pytest.fixture(scope="module")
def debian_13() -> Iterator[DebianThirteen]:
    folder = cache() / "test-debian-13"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ours = folder / "checkout"
        shutil.rmtree(ours, ignore_errors=True)
        for name in TAKEN_ALONG:
            (ours / name).parent.mkdir(parents=True, exist_ok=True)
            if (CHECKOUT / name).is_dir():
                shutil.copytree(CHECKOUT / name, ours / name)
            else:
                shutil.copy(CHECKOUT / name, ours / name)
        yield DebianThirteen(system_tree(folder), ours)
        shutil.rmtree(ours)


def system_tree(folder: Path) -> Path:
    """Return Debian 13's root tree with the packages that ./xp wants, built unless cached."""
    listed = (CHECKOUT / "locks/debian-runtime.txt").read_text().splitlines()
    packages = ["python3", *(line for line in listed if line and not line.startswith("#"))]
    digest = hashlib.sha256(json.dumps([SUITE, packages]).encode()).hexdigest()[:12]
    tree = folder / f"tree-{digest}"
    if not tree.exists():
        for outdated in folder.glob("tree-*"):
            shutil.rmtree(outdated)
        building = folder / "building"
        shutil.rmtree(building, ignore_errors=True)
        output([
            *contained(), program("mmdebstrap"), "--mode=root", "--variant=minbase",
            f"--include={','.join(packages)}", '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Retries "3"', f"--keyring={image.KEYRING}", SUITE, str(building),
        ])  # fmt: skip
        building.rename(tree)
    return tree


def test_a_plan_is_made_by_its_python(debian_13: DebianThirteen) -> None:
    assert "two-sites: 9 hosts at 2 sites" in debian_13.run("./xp", "plan", "two-sites")
    assert "Python 3.13" in debian_13.run("/root/environment/bin/python", "--version")


def test_what_it_fetches_is_for_the_hosts_python(debian_13: DebianThirteen) -> None:
    debian_13.run("./xp", "--version")
    text = software.OPENSTACK.lock_file.read_text().replace("\\\n", " ")
    chosen = [line for line in text.splitlines() if line.partition("==")[0] in FETCHED]
    assert len(chosen) == len(FETCHED)
    (debian_13.ours / "lock.txt").write_text("\n".join(chosen) + "\n")
    debian_13.run("/root/environment/bin/python", "-c", FETCH,
                  str(CHECKOUT / "lock.txt"), str(CHECKOUT / "wheels"))  # fmt: skip
    fetched = sorted(path.name for path in (debian_13.ours / "wheels").iterdir())
    assert len(fetched) == len(FETCHED)
    # The very files that this machine's own Python would have fetched.
    wheels = {path.name for path in software.OPENSTACK.ensure_wheels().iterdir()}
    assert set(fetched) <= wheels
