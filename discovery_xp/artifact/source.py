"""The source of an artifact: this version of the toolkit, and the commits that runs were made by.

They come from the repository that the toolkit runs from, by `git archive`: equal commits give
equal bytes.
"""

from __future__ import annotations

import gzip
import io
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from discovery_xp.places import checkout, is_checkout

FOLDER = "source"
_SHOWN = 12  # digits of a commit
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """Archives of source by their name in the artifact; `own` is that of this version.

    `missing` are commits of runs that aren't in the repository, `remarks` what to know of it.
    """

    archives: dict[str, bytes]
    own: str | None
    of_runs: dict[str, str]
    missing: tuple[str, ...]
    remarks: tuple[str, ...]


def sources(commits: Iterable[str | None]) -> Source:
    """Return the source of this version, and of the commits that runs name.

    Of a toolkit that was installed from a wheel there is none.
    """
    named = sorted({commit for commit in commits if commit})
    if not is_checkout() or (head := _git("rev-parse", "HEAD")) is None:
        why = "the toolkit doesn't run from a checkout: its source isn't in the artifact"
        return Source({}, None, {}, tuple(named), (why,))
    archives: dict[str, bytes] = {}
    remarks = []
    own = _add(archives, head.decode().strip())
    if _git("status", "--porcelain", "--untracked-files=no") not in (b"", None):
        remarks.append("the checkout has changes that aren't in the artifact: commit them first")
    of_runs, missing = {}, []
    for commit in named:
        archive = _add(archives, commit.rstrip("+"))
        if archive is None:
            missing.append(commit)
        else:
            of_runs[commit] = archive
        if commit.endswith("+"):
            remarks.append(f"a run was made by {commit[:_SHOWN]} with changes, which are nowhere")
    if missing:
        shown = ", ".join(commit[:_SHOWN] for commit in missing)
        remarks.append(f"not in this repository, so without their source: {shown}")
    return Source(archives, own, of_runs, tuple(missing), tuple(remarks))


def _add(archives: dict[str, bytes], commit: str) -> str | None:
    """Add the archive of a commit, unless it is there; return its name, None without one."""
    if not _COMMIT.fullmatch(commit):
        return None
    prefix = f"discovery-xp-{commit[:_SHOWN]}"
    name = f"{FOLDER}/{prefix}.tar.gz"
    if name not in archives:
        # Results are in the artifact anyway, and are most of the repository.
        packed = _git("archive", "--format=tar", f"--prefix={prefix}/", commit, "--", ".",
                      ":(exclude)results")  # fmt: skip
        if packed is None:
            return None
        archives[name] = zipped(packed)
    return name


def zipped(data: bytes) -> bytes:
    """Return data as gzip packs it, without a time or a name."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def _git(*arguments: str) -> bytes | None:
    """Return what git prints, None where it fails or isn't there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout()), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
