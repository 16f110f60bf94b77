#!/usr/bin/python
"""Bring the databases of several components to their newest schemas, side by side."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.discovery_onhost.cloud import schemas
from ansible.module_utils.discovery_onhost.process import answer

DOCUMENTATION = r"""
module: schemas
short_description: Run schema migrations where they are due, in parallel
description: Runs on the Python of the OpenStack environment.
options:
  schemas:
    description: >
      For each: name, scripts (folder of Alembic's scripts, relative to
      site-packages, or none), query (must give a row once all is done, or none), user,
      migrations and commands (lists of words; run in order when the schema is behind or the
      query empty).  An empty database may be loaded from a dump instead of migrated; its
      commands run all the same.
    type: list
    required: true
  urls:
    description: name -> SQLAlchemy's URL of its database; never logged
    type: dict
    required: true
  cells:
    description: >
      database of a cell of Nova's -> its configuration; the schema `nova` is brought up in each
      of them, instead of in a database of that name
    type: dict
  dumps: {description: dumps of empty databases at their newest schemas in base64 or '', type: str}
  keep: {description: return dumps of databases that were migrated from nothing, type: bool}
  inputs: {description: "name -> what its commands read from stdin; never logged", type: dict}
"""


def main() -> None:
    """Migrate what is due, as Ansible asks for it."""
    module = AnsibleModule(
        argument_spec={
            "schemas": {"type": "list", "elements": "dict", "required": True},
            "urls": {"type": "dict", "required": True, "no_log": True},
            "inputs": {"type": "dict", "no_log": True, "default": {}},
            "cells": {"type": "dict", "default": {}},
            "dumps": {"type": "str", "default": ""},
            "keep": {"type": "bool", "default": False},
        }
    )
    answer(module, schemas.migrate_due)


if __name__ == "__main__":
    main()
