#!/usr/bin/python
"""Gather a component's configuration, journal, databases and versions, without its secrets."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import tarfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: component_backup
short_description: A component's records as one archive, secrets replaced by their names
options:
  name: {description: The component., required: true, type: str}
  configuration: {description: Files and folders., type: list}
  units: {description: Whose journals., type: list}
  databases: {description: Of MariaDB., type: list}
  urls:
    description: >
      name -> SQLAlchemy's URL of a database that no tool of its own dumps; never logged.  It
      needs the Python of an environment that has SQLAlchemy.
    type: dict
  versions: {description: "Words of a command that prints versions", type: list}
  secrets: {description: "name -> text that must not get out", type: dict}
"""


def main() -> None:
    """What Ansible calls; the archive is in the result, base64 of a gzipped tar."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "configuration": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "databases": {"type": "list", "elements": "str", "default": []},
            "urls": {"type": "dict", "no_log": True, "default": {}},
            "versions": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "dict", "no_log": True, "default": {}},
        },
        supports_check_mode=True,
    )
    args: dict[str, Any] = module.params
    files: dict[str, bytes] = {}
    for path in args["configuration"]:
        for file in files_under(path):
            with open(file, "rb") as opened:
                files[f"configuration{file}"] = opened.read()
    for unit in args["units"]:
        command = ["journalctl", "--no-pager", "--output=short-iso-precise", f"--unit={unit}"]
        files[f"journal/{unit}.log"] = output_of(module, command)
    for database in args["databases"]:
        command = ["mariadb-dump", "--single-transaction", "--routines", database]
        files[f"database/{database}.sql"] = output_of(module, command)
    for name, url in args["urls"].items():
        files[f"database/{name}.jsonl"] = rows_of(module, name, url)
    if args["versions"]:
        files["versions.txt"] = output_of(module, args["versions"])
    archive = pack({name: mask(data, args["secrets"]) for name, data in files.items()})
    module.exit_json(changed=False, archive=base64.b64encode(archive).decode(), files=len(files))


def files_under(path: str) -> list[str]:
    """The file itself, or every file in the folder; nothing where there is none."""
    if os.path.isfile(path):
        return [path]
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if not name.endswith((".pyc", ".py", ".new")) or name == "gunicorn.conf.py"
    )


def output_of(module: AnsibleModule, command: list[str]) -> bytes:
    """What a command prints; its failure is a line of the record, not the end of it."""
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        module.warn(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout + b"\n" + done.stderr
    return done.stdout


def rows_of(module: AnsibleModule, name: str, url: str) -> bytes:
    """Every row of a database as a line of JSON, table by table; a failure is a line, too."""
    import sqlalchemy

    lines: list[str] = []
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.MetaData()
            tables.reflect(connection)
            for table in tables.sorted_tables:
                for row in connection.execute(table.select()).mappings():
                    lines.append(json.dumps({"table": table.name, **row}, default=str))
    except sqlalchemy.exc.SQLAlchemyError as error:
        words = f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"
        module.warn(f"{name}: {words}")
        lines.append(json.dumps({"error": words}))
    finally:
        engine.dispose()
    return "".join(f"{line}\n" for line in lines).encode()


def mask(data: bytes, secrets: dict[str, str]) -> bytes:
    """`data` with every secret replaced by its name."""
    for name, secret in secrets.items():
        data = data.replace(secret.encode(), f"<{name}>".encode())
    return data


def pack(files: dict[str, bytes]) -> bytes:
    """A gzipped tar; databases are compressed with the rest."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


if __name__ == "__main__":
    main()
