#!/usr/bin/python
"""Wait until Nova's services listen on the message bus of this host."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.cloud import computes
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: cloud_listeners
short_description: The queues of a message bus have their readers
description: Runs on the host of the bus, on the Python of the OpenStack environment.
options:
  queues: {description: "queue of the message bus -> who must read it", type: dict, required: true}
  timeout_s: {description: For all to listen., type: int, default: 300}
"""


def main() -> None:
    """Wait for the listeners, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "queues": {"type": "dict", "required": True},
            "timeout_s": {"type": "int", "default": 300},
        }
    )
    answer(module, computes.listened_to)


if __name__ == "__main__":
    main()
