#!/usr/bin/python
"""Lay down a component on a host and run its units: one task where Ansible has a dozen.

Over ssh a task costs far more than what it does; sixty hosts with a dozen tasks each
would take minutes.  This one creates the user, writes files that differ, and starts or
restarts units whose files changed since they were started.
"""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost import component
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: component
short_description: Files, user and systemd units of one component
options:
  name: {description: The component., required: true, type: str}
  user: {description: System user to create; its home is /var/lib/USER., type: str}
  directories: {description: "path -> [owner, mode]", type: dict}
  files: {description: "path -> [owner:group, mode]", type: dict}
  contents: {description: "path -> text; never logged", type: dict}
  copies: {description: "path -> existing file on the host", type: dict}
  initial: {description: "path -> text where there is no such file yet", type: dict}
  units: {description: Units to enable and run., type: list}
  ports: {description: "unit -> port that must answer before it counts as up", type: dict}
  http: {description: The ports must answer over HTTP., type: bool, default: false}
  stamp: {description: Anything whose change restarts the units., type: str}
  wait: {description: Wait for the ports., type: bool, default: true}
  timeout_s: {description: For units to start and ports to answer., type: int, default: 180}
  probes:
    description: "What the bench measures by, put in as units start: `wanted`, `units` of `probes`"
    type: dict
  probe_code: {description: The option `contents` of `probes`., type: dict}
"""


def main() -> None:
    """Lay down a component, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "user": {"type": "str"},
            "directories": {"type": "dict"},
            "files": {"type": "dict"},
            "contents": {"type": "dict", "no_log": True},
            "copies": {"type": "dict"},
            "initial": {"type": "dict"},
            "units": {"type": "list", "elements": "str"},
            "ports": {"type": "dict"},
            "http": {"type": "bool", "default": False},
            "stamp": {"type": "str", "default": ""},
            "wait": {"type": "bool", "default": True},
            "timeout_s": {"type": "int", "default": 180},
            "probes": {"type": "dict"},
            "probe_code": {"type": "dict", "no_log": True},
        }
    )
    answer(module, component.lay_down)


if __name__ == "__main__":
    main()
