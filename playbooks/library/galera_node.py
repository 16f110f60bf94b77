#!/usr/bin/python
"""Have a node of Galera in its cluster, which at most one of all nodes starts."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost import galera
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: galera_node
short_description: A step of making the nodes of Galera one cluster
options:
  step:
    description: >
      look (what the node is), locate (how far it came, where no node is in a cluster), start (a
      cluster, by one of all nodes, where there is none), join, restart, agree (that all are there).
    type: str
    required: true
  host: {description: This host, as the others know it., type: str, required: true}
  seen: {description: What the step before returned of all nodes in their order., type: list}
  files: {description: What MariaDB is started with., type: list}
  size: {description: Members that there must be at least., type: int, default: 1}
  timeout_s: {description: For all of it., type: int, default: 600}
"""


def main() -> None:
    """Take a step, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True},
            "host": {"type": "str", "required": True},
            "seen": {"type": "list", "elements": "dict", "default": []},
            "files": {"type": "list", "elements": "str", "default": []},
            "size": {"type": "int", "default": 1},
            "timeout_s": {"type": "int", "default": 600},
        }
    )
    answer(module, galera.take)


if __name__ == "__main__":
    main()
