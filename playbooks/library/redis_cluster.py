#!/usr/bin/python
"""Make one Redis Cluster of servers that run in cluster mode, each with its share of the slots."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost import redis_cluster
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: redis_cluster
short_description: Redis servers in cluster mode become one cluster
options:
  nodes:
    description: >
      For each: host, address, port, slots (the first and the last one, of a master), copies
      (the host of the master that it is a replica of, or none).
    type: list
    required: true
  password: {description: The administrator's., type: str, required: true}
  timeout_s: {description: For all of it., type: int, default: 120}
"""


def main() -> None:
    """Make the cluster, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "dict", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "timeout_s": {"type": "int", "default": 120},
        }
    )
    answer(module, redis_cluster.ensure)


if __name__ == "__main__":
    main()
