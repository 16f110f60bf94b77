"""The hosts at two sites that all tests of this folder have."""

from __future__ import annotations

from tests.real.conftest import HOME

NAME = "sites"
SITES = f"""
name: {NAME}
sites: [{{name: near, data: 1}}, {{name: far, data: 1}}]
network: {{delay: 5ms}}
provider: {{type: local, limits: {{data: {{disk: 1GiB}}}}}}
"""
FOLDER = HOME / "testbeds" / NAME
MASTER = "near-master-1"
DATA = {"near": "near-data-1", "far": "far-data-1"}
