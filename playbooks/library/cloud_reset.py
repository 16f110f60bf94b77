#!/usr/bin/python
"""Take out of a cloud what loads left in it."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.cloud import reset
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: cloud_reset
short_description: VMs of loads deleted, deleted rows archived and purged, the cache empty
options:
  auth_url: {description: Keystone's URL., type: str, required: true}
  password: {description: admin's., type: str, required: true}
  region: {description: The region whose APIs are asked., type: str, required: true}
  archive: {description: Nova's command that archives and purges., type: list, required: true}
  cache: {description: The unit of the cache of tokens., type: str, required: true}
  timeout_s: {description: For VMs to be gone, and for archiving., type: int, default: 900}
"""


def main() -> None:
    """Reset the cloud, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "auth_url": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "region": {"type": "str", "required": True},
            "archive": {"type": "list", "elements": "str", "required": True},
            "cache": {"type": "str", "required": True},
            "timeout_s": {"type": "int", "default": 900},
        }
    )
    answer(module, reset.reset)


if __name__ == "__main__":
    main()
