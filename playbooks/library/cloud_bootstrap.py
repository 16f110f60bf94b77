#!/usr/bin/python
"""Fill a new cloud with what its users need: services, endpoints, users, an image."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.cloud import bootstrap
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: cloud_bootstrap
short_description: Services, endpoints, users and an image of a new cloud
options:
  auth_url: {description: Keystone's URL., type: str, required: true}
  password: {description: admin's., type: str, required: true}
  service_password: {description: Of the services' own users., type: str, required: true}
  user_password: {description: Of the user of experiments., type: str, required: true}
  regions: {description: "[{name, urls: {service type: URL}}]", type: list, required: true}
  service_users: {description: Names., type: list, required: true}
  user: {description: Name of the user and the project of experiments., type: str, required: true}
  image: {description: Its name., type: str, required: true}
  nics: {description: With 1 a network is made., type: int, required: true}
"""


def main() -> None:
    """Fill the cloud, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "auth_url": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "service_password": {"type": "str", "required": True, "no_log": True},
            "user_password": {"type": "str", "required": True, "no_log": True},
            "regions": {"type": "list", "elements": "dict", "required": True},
            "service_users": {"type": "list", "elements": "str", "required": True},
            "user": {"type": "str", "required": True},
            "image": {"type": "str", "required": True},
            "nics": {"type": "int", "required": True},
        }
    )
    answer(module, bootstrap.fill)


if __name__ == "__main__":
    main()
