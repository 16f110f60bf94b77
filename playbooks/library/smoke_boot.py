#!/usr/bin/python
"""Boot a VM at every site, through the API that serves the site, and delete it again."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.cloud import smoke
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: smoke_boot
short_description: One VM ACTIVE at each site, through its own API
options:
  auth_url: {description: Keystone's URL., type: str, required: true}
  password: {description: admin's., type: str, required: true}
  boots: {description: "[{site, region, computes}]", type: list, required: true}
  flavor: {description: Its name., type: str, required: true}
  image: {description: Its name., type: str, required: true}
  network: {description: Its name; empty for VMs without a NIC., type: str, required: true}
  timeout_s: {description: For a VM to be ACTIVE., type: int, default: 120}
"""


def main() -> None:
    """Boot the VMs, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "auth_url": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "boots": {"type": "list", "elements": "dict", "required": True},
            "flavor": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "network": {"type": "str", "required": True},
            "timeout_s": {"type": "int", "default": 120},
        }
    )
    answer(module, smoke.boot_each)


if __name__ == "__main__":
    main()
