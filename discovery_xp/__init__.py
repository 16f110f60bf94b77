"""Experiments on geo-distributed clouds: from a topology file to tables and figures."""

import os
import tempfile
from pathlib import Path


def _settings_file() -> str:
    """Ansible's settings: the user's or the machine's own, never those of the working directory.

    A folder of someone's topologies may have an `ansible.cfg` that names code to run.
    """
    own = Path(os.environ.get("HOME") or "/nonexistent") / ".ansible.cfg"
    for path in (own, Path("/etc/ansible/ansible.cfg")):
        if os.access(path, os.R_OK):
            return str(path)
    return str(Path(__file__).parent / "deployment/ansible_plugins/ansible.cfg")


# Ansible reads its settings once, when something first imports it.
for _name, _value in {
    "ANSIBLE_CONFIG": _settings_file(),
    # See testbeds/ansible_runs.py: it is removed as soon as it is made.
    "ANSIBLE_LOCAL_TEMP": tempfile.gettempdir(),
    # What a host says of itself becomes no variable, least of all of how it is reached.
    "ANSIBLE_INJECT_FACT_VARS": "False",
    "ANSIBLE_PIPELINING": "True",  # saves a file copy for each task
    "ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS": "ignore",  # a site may have a hyphen in its name
    # Most of our plays are one task long: nothing to share a connection with, and the
    # processes that keep shared connections would outlive a killed run.
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none",
    # Through a gateway that many use, or on a busy machine, a login may take longer than the
    # 10 s of Ansible's default, or be turned away at first.
    "ANSIBLE_TIMEOUT": "30",
    "ANSIBLE_SSH_RETRIES": "2",
    # Playbooks report to discovery_xp/deployment/play.py.
    "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "deployment/ansible_plugins/callback"),
    "ANSIBLE_STDOUT_CALLBACK": "follow_plays",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
}.items():
    os.environ.setdefault(_name, _value)
