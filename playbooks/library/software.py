#!/usr/bin/python
"""Software on a host: Debian packages, and a Python environment of locked wheels."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost import software
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: software
short_description: Debian packages and a Python environment
options:
  step:
    description: >
      packages installs those that are missing, and says in lacks_environment whether there
      is no environment of this stamp; serve offers folder/served over HTTP, stop ends that;
      install makes the environment; wheel puts one more wheel into it, in place of an earlier
      one; remove removes it and what the other steps left.
    choices: [packages, serve, install, wheel, stop, remove]
    required: true
  place: {description: Where the environment is., type: str}
  program: {description: One that is there in bin/ once all is installed., type: str}
  stamp: {description: What a whole environment's stamp holds., type: str}
  built_for: {description: "[Python, machine] of the wheels, as [cp311, x86_64]", type: list}
  packages: {description: Debian packages that must be installed., type: list}
  folder: {description: For wheels that are served or being installed., type: str}
  url: {description: Where the archive of the wheels is served and fetched., type: str}
  checksum: {description: The archive's SHA-1., type: str}
  wheel: {description: Path of the further wheel., type: str}
  timeout_s: {description: "For all of the step; of serve, the longest run.", type: int}
"""


def main() -> None:
    """Do one step, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "step": {
                "choices": ["packages", "serve", "install", "wheel", "stop", "remove"],
                "required": True,
            },
            "place": {"type": "str"},
            "program": {"type": "str"},
            "stamp": {"type": "str"},
            "built_for": {"type": "list", "elements": "str"},
            "packages": {"type": "list", "elements": "str", "default": []},
            "folder": {"type": "str"},
            "url": {"type": "str"},
            "checksum": {"type": "str"},
            "wheel": {"type": "str"},
            "timeout_s": {"type": "int", "default": 300},
        }
    )
    answer(module, software.run)


if __name__ == "__main__":
    main()
