"""A component's records on this host as one archive, secrets replaced by their names."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO

# Whoever unpacks it takes no more.
FILE_BYTES = 128 * 2**20
PACKED_BYTES = 40 * 2**20


def gather(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the archive, base64 of a gzipped tar; what can't be had is a warning.

    `args` are the options of Ansible's module `component_backup`.
    """
    files: dict[str, bytes] = {}
    warnings: list[str] = []
    for path in args["configuration"]:
        for file in files_under(path):
            with open(file, "rb") as opened:
                files[f"configuration{file}"] = end_of(opened)
    for unit in args["units"]:
        command = ["journalctl", "--no-pager", "--output=short-iso-precise", f"--unit={unit}"]
        files[f"journal/{unit}.log"] = output_of(command, warnings)
    for database in args["databases"]:
        command = ["mariadb-dump", "--single-transaction", "--routines", database]
        files[f"database/{database}.sql"] = output_of(command, warnings)
    for name, url in args["urls"].items():
        files[f"database/{name}.jsonl"] = rows_of(name, url, warnings)
    if args["versions"]:
        files["versions.txt"] = output_of(args["versions"], warnings)
    archive = pack_within({name: mask(data, args["secrets"]) for name, data in files.items()})
    return {
        "archive": base64.b64encode(archive).decode(),
        "files": len(files),
        "warnings": warnings,
    }


def files_under(path: str) -> list[str]:
    """Return the file itself, or every file in the folder; nothing where there is none."""
    if os.path.isfile(path):
        return [path]
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if (not name.endswith((".pyc", ".py", ".new")) or name == "gunicorn.conf.py")
        and os.path.isfile(os.path.join(folder, name))  # a pipe would be read for ever
    )


def end_of(file: BinaryIO) -> bytes:
    """Return what is in a file; of one that is too large its end, and a line that says so."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - FILE_BYTES))
    data = file.read(FILE_BYTES)
    left_out = size - len(data)
    return f"({left_out} bytes before this are left out)\n".encode() + data if left_out else data


def output_of(command: list[str], warnings: list[str]) -> bytes:
    """Return what a command prints; its failure is a line of the record, and a warning."""
    with tempfile.TemporaryFile() as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=False)
        data = end_of(file)
    if done.returncode:
        warnings.append(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
        return data + b"\n" + done.stderr[-FILE_BYTES:]
    return data


def rows_of(name: str, url: str, warnings: list[str]) -> bytes:
    """Return every row of a database as a line of JSON, by table; a failure is a line, too."""
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
        warnings.append(f"{name}: {words}")
        lines.append(json.dumps({"error": words}))
    finally:
        engine.dispose()
    return "".join(f"{line}\n" for line in lines).encode()


def mask(data: bytes, secrets: dict[str, str]) -> bytes:
    """Return `data` with every secret replaced by its name."""
    for name, secret in secrets.items():
        data = data.replace(secret.encode(), f"<{name}>".encode())
    return data


def pack_within(files: dict[str, bytes]) -> bytes:
    """Return all files packed; while that is too large, the largest one is only named."""
    remaining = dict(files)
    while len(packed := pack(remaining)) > PACKED_BYTES:
        largest = max(remaining, key=lambda name: len(remaining[name]))
        if not remaining[largest]:
            break
        del remaining[largest]
        remaining[f"{largest}.left-out"] = b""
    return packed


def pack(files: dict[str, bytes]) -> bytes:
    """Return a gzipped tar; databases are compressed with the rest."""
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
