"""Experiments on geo-distributed clouds: from a topology file to tables and figures."""

import os
from pathlib import Path

# Ansible reads its settings once, when something first imports it.
for _name, _value in {
    "ANSIBLE_PIPELINING": "True",  # saves a file copy for each task
    "ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS": "ignore",  # a site may have a hyphen in its name
    # Most of our plays are one task long: nothing to share a connection with, and the
    # processes that keep shared connections would outlive a killed run.
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none",
    # Playbooks report to discovery_xp/play.py.
    "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "ansible_plugins/callback"),
    "ANSIBLE_STDOUT_CALLBACK": "follow_plays",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
}.items():
    os.environ.setdefault(_name, _value)
