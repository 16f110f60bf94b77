"""Put what the toolkit needs beside its modules into its wheel, as `discovery_xp/shipped`.

In a checkout these folders stay where they are, and an editable install uses them there;
`discovery_xp.places.checkout` finds both.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = (
    *("campaigns", "locks", "notebooks", "playbooks", "scenarios", "topologies"),
    *("rome/LICENSE", "rome/README.md", "rome/pyproject.toml", "rome/src"),
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")


class BuildWithShippedFiles(build_py):
    """Copies the folders next to the modules, but not for an editable install."""

    def run(self) -> None:
        """Build the modules, then add the folders."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "discovery_xp/shipped")
        shutil.rmtree(target, ignore_errors=True)  # an earlier build may have left other files
        for name in SHIPPED:
            source = Path(__file__).parent / name
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=LEFT_OUT)
            else:
                shutil.copy(source, target / name)


setup(cmdclass={"build_py": BuildWithShippedFiles})
