#!/usr/bin/python
"""The probes of a host: laid down, started, read and taken away, one task for each."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.probes import installation, window
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: probes
short_description: What the bench measures a host by
options:
  step: {description: What is done., required: true, type: str}
  wanted: {description: Names of the probes that are on., type: list, default: []}
  units:
    description: "unit -> probes inside it, and its HTTP port if it has one"
    type: dict
    default: {}
  contents: {description: "path below the probes' folder -> text", type: dict, default: {}}
  since: {description: "Start of the window, s since 1970.", type: float, default: 0}
  until: {description: "Its end.", type: float, default: 0}
  every_s: {description: Seconds from a sample of the series to the next., type: float, default: 5}
  longest_s: {description: For so long at most they are sampled., type: float, default: 3600}
  timeout_s: {description: For services to answer again., type: int, default: 180}
"""

STEPS = {
    "deploy": installation.deploy,
    "start": window.start,
    "stop": window.stop,
    "collect": window.collect,
    "remove": installation.remove,
}


def main() -> None:
    """Do one step, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "step": {
                "type": "str",
                "required": True,
                "choices": ["deploy", "start", "stop", "collect", "remove"],
            },
            "wanted": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "dict", "default": {}},
            "contents": {"type": "dict", "default": {}, "no_log": True},
            "since": {"type": "float", "default": 0},
            "until": {"type": "float", "default": 0},
            "every_s": {"type": "float", "default": 5},
            "longest_s": {"type": "float", "default": 3600},
            "timeout_s": {"type": "int", "default": 180},
        }
    )
    answer(module, STEPS[module.params["step"]])


if __name__ == "__main__":
    main()
