"""The package's own files, as they are laid down on a host that is to import them.

There it has the same name, `discovery_xp.onhost`, below a folder of PYTHONPATH.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
# What the whole package does when it is imported is for the control machine.
_PARENT = '"""The part of discovery-xp that runs on hosts."""\n'


def sources(*parts: str) -> dict[str, str]:
    """Return the texts of modules and subpackages, by path below a folder of PYTHONPATH.

    `parts` are paths in the package without a suffix, as `wire` or `probes/inside`; the
    packages that they are in come with them.
    """
    texts = {"discovery_xp/__init__.py": _PARENT}
    for part in parts:
        for path in (*_packages_of(part), *_files_of(part)):
            with open(f"{HERE}/{path}", encoding="utf-8") as file:
                texts[f"discovery_xp/onhost/{path}"] = file.read()
    return texts


def _packages_of(part: str) -> Iterator[str]:
    """The __init__.py of each package around a part."""
    folder = part
    while folder:
        folder = folder.rpartition("/")[0]
        yield f"{folder}/__init__.py".lstrip("/")


def _files_of(part: str) -> Iterator[str]:
    if not os.path.isdir(f"{HERE}/{part}"):
        yield f"{part}.py"
        return
    for folder, _, names in os.walk(f"{HERE}/{part}"):
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.relpath(f"{folder}/{name}", HERE)
