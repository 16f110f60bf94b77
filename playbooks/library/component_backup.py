#!/usr/bin/python
"""Gather a component's configuration, journal, databases and versions, without its secrets."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost import backup
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: component_backup
short_description: A component's records as one archive, secrets replaced by their names
options:
  name: {description: The component., required: true, type: str}
  configuration: {description: Files and folders., type: list}
  units: {description: Whose journals., type: list}
  databases: {description: Of MariaDB., type: list}
  urls:
    description: >
      name -> SQLAlchemy's URL of a database that no tool of its own dumps; never logged.  It
      needs the Python of an environment that has SQLAlchemy.
    type: dict
  versions: {description: "Words of a command that prints versions", type: list}
  secrets: {description: "name -> text that must not get out", type: dict}
"""


def main() -> None:
    """Gather the records, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "configuration": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "databases": {"type": "list", "elements": "str", "default": []},
            "urls": {"type": "dict", "no_log": True, "default": {}},
            "versions": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "dict", "no_log": True, "default": {}},
        },
        supports_check_mode=True,
    )
    answer(module, backup.gather)


if __name__ == "__main__":
    main()
