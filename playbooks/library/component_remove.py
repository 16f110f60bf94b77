#!/usr/bin/python
"""Take a component off a host: its units, files, data and user.

Debian's packages stay: they may have been there before.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: component_remove
short_description: Stop a component and remove what it left
options:
  name: {description: The component., required: true, type: str}
  units: {description: Units to stop and disable., type: list}
  paths: {description: Files and folders to remove., type: list}
  user: {description: System user to remove., type: str}
"""

STARTED = "/var/lib/discovery-xp"


def main() -> None:
    """What Ansible calls."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "str", "default": []},
            "paths": {"type": "list", "elements": "str", "default": []},
            "user": {"type": "str"},
        }
    )
    changes: list[str] = []
    known = [unit for unit in module.params["units"] if exists(unit)]
    if known:  # side by side: some take seconds to end
        run(module, ["systemctl", "disable", "--quiet", "--now", *known])
        changes += [f"{unit} stopped" for unit in known]
    for path in [
        *module.params["paths"],
        *(f"/etc/systemd/system/{unit}.service" for unit in module.params["units"]),
        *(f"/etc/systemd/system/{unit}.service.d" for unit in module.params["units"]),
        *(f"{STARTED}/{unit}" for unit in module.params["units"]),
    ]:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
        else:
            continue
        changes.append(path)
    if changes:
        run(module, ["systemctl", "daemon-reload"])
    user = module.params["user"]
    if user and user in {entry.pw_name for entry in pwd.getpwall()}:
        run(module, ["userdel", user])
        changes.append(f"user {user}")
    if os.path.isdir(STARTED) and not os.listdir(STARTED):
        os.rmdir(STARTED)
    module.exit_json(changed=bool(changes), changes=changes)


def exists(unit: str) -> bool:
    """True when systemd knows the unit."""
    done = subprocess.run(["systemctl", "cat", unit], capture_output=True, check=False)
    return done.returncode == 0


def run(module: AnsibleModule, command: list[str]) -> None:
    """Run it, or fail with its words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        module.fail_json(msg=f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
