"""Started by Python itself in a service whose unit has our drop-in: puts the probes in.

Whatever goes wrong here, the service starts as it would without us.
"""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = __file__.rpartition("/")[0]


def _start() -> None:
    probes = os.environ.get("DISCOVERY_PROBES", "")
    folder = os.environ.get("DISCOVERY_PROBE_FOLDER", "")
    if probes and folder:
        importlib.import_module("discovery_xp.onhost.probes.inside.start").start(
            probes.split(","), folder
        )


def _run_the_systems_own() -> None:
    """Run the one that would have run without us: ours is found before it."""
    rest = [path for path in sys.path if path.rstrip("/") != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", rest)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


try:
    _start()
except Exception as error:
    sys.stderr.write(f"discovery-xp's probes don't work here: {error!r}\n")
_run_the_systems_own()
