#!/usr/bin/python
"""Take a component off a host: its units, files, data and user."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost import component
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: component_remove
short_description: Stop a component and remove what it left
options:
  name: {description: The component., required: true, type: str}
  units: {description: Units to stop and disable., type: list}
  paths: {description: Files and folders to remove., type: list}
  user: {description: System user to remove., type: str}
  left_by: {description: A file of the component's; nothing is done without it., type: str}
"""


def main() -> None:
    """Remove a component, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "str", "default": []},
            "user": {"type": "str"},
            "left_by": {"type": "str"},
        }
    )
    answer(module, component.remove)


if __name__ == "__main__":
    main()
