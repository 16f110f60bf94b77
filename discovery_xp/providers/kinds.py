"""What is known of each type of provider without loading it.

Ending a testbed on a full disk has to do without EnOSlib and Ansible, which some providers load:
so these facts stand apart from what providers do.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The file of a testbed's folder that says what was borrowed from EnOSlib's own providers.
MACHINES_RECORD = "machines.json"
JOBS_RECORD = "grid5000.json"
CANNED_RECORD = "canned.json"


@dataclass(frozen=True)
class Kind:
    """A type of provider: the module and class that provide, and what is special about it.

    - `is_local`: hosts are processes of this machine.  Their CPU time is this machine's, and
      traces of them may be there whatever became of a testbed's state.
    - `needs_root`: only root makes and removes its hosts.
    - `guards`: it keeps others than root of this machine from the hosts, `up --expose` apart.
    - `stays`: hosts are there before the testbed and after it; `clear` has to clean them.
    - `lends`: hosts are somebody else's, and cost something while we have them.
    - `record`: the file of a testbed's folder that says what was borrowed.
    - `is_named`: what is borrowed bears the testbed's name, and is found by it on the platform.
    - `login`, `domain`: the file of the user's home that says who asks the platform, and the
      platform's own domain, inside of which it knows that.
    - `is_canned`: there are no hosts, and what they answer is made up.
    - `links_by`: how links are imposed, in words; None where that is chosen on the machine.
    """

    module: str
    provider: str
    is_local: bool = False
    needs_root: bool = False
    guards: bool = False
    stays: bool = False
    lends: bool = False
    record: str | None = None
    is_named: bool = False
    login: str | None = None
    domain: str | None = None
    is_canned: bool = False
    links_by: str | None = "tc netem on the hosts"

    @property
    def can_be_asked(self) -> bool:
        """True where the platform knows who asks: there is a login, or this is its own machine."""
        if self.login is not None and (Path(os.environ.get("HOME", "/")) / self.login).exists():
            return True
        return self.domain is not None and socket.getfqdn().endswith(self.domain)


_MACHINES = Kind("enoslib_machines", "EnoslibMachines", lends=True, record=MACHINES_RECORD)
KINDS: Mapping[str, Kind] = {
    "local": Kind("local", "EmulatedHosts", is_local=True, needs_root=True, guards=True,
                  links_by=None),
    "static": Kind("static", "StaticHosts", stays=True),
    "g5k": Kind("grid5000", "Grid5000Nodes", lends=True, record=JOBS_RECORD, is_named=True,
                login=".python-grid5000.yaml", domain="grid5000.fr"),
    "vmong5k": _MACHINES,
    "vagrant": _MACHINES,
    "chameleon": _MACHINES,
    "dummy": Kind("dummy", "CannedHosts", lends=True, record=CANNED_RECORD, is_canned=True,
                  links_by="nobody, as there are no hosts"),
}  # fmt: skip
