"""Cases of stored runs: their files changed, replaced by other things, or gone."""

from __future__ import annotations

import functools
import io
import json
import random
from collections.abc import Mapping
from typing import Any

from tests.fuzz import mutate
from tests.fuzz.bases import BASES
from tests.fuzz.case import Case, Content, bytes_of, content

STEPS = (
    (4, ("report", "run")),
    (4, ("report", "run", "--csv", "csv", "--latex", "latex")),
    (2, ("report", "run", "--figures", "figures")),
    (3, ("report", "run", "other")),
    (2, ("trace", "run")),
    (1, ("trace", "run", "--vm", "vm-0", "--csv", "csv", "--figures", "figures")),
    (2, ("report", "run", "other", "--html", "page.html")),
    (1, ("report", ".", "--paper", "--html", "page.html")),
)


def make(rng: random.Random, name: str) -> Case:
    """A case of a run with one to three of its files changed."""
    base = rng.choices(["runs", "reference"], [8, 1])[0]
    steps = [step for _, step in STEPS if base == "runs" or "other" not in step]
    weights = [weight for weight, step in STEPS if base == "runs" or "other" not in step]
    files: dict[str, Content] = {}
    before = {path: each for path, each in BASES[base]().items() if path.startswith("work/run/")}
    if rng.random() < 0.35:
        paths = ["work/run/run.json"]
    else:
        paths = rng.sample(sorted(before), rng.choice([1, 1, 2, 3]))
    for path in paths:
        files[path] = _changed(path, before[path], rng)
    if rng.random() < 0.1:
        files |= _besides(rng, sorted(before))
    return Case(
        "runs", name, base, files, (rng.choices(steps, weights)[0],), about=", ".join(files)
    )


def _changed(path: str, before: Content, rng: random.Random) -> Content:
    if rng.random() < 0.12:
        return _other_thing(rng)
    data = bytes_of(before)
    assert data is not None
    if path.endswith(".json"):
        return content(mutate.mutate_json(data.decode(), rng))
    if path.endswith(".parquet"):
        if rng.random() < 0.7:
            return content(_changed_table(data, rng))
        return content(mutate.mutate_bytes(data, rng))
    return content(mutate.mutate_bytes(data, rng))


def _other_thing(rng: random.Random) -> dict[str, Any]:
    """What may stand in a file's place."""
    return dict(rng.choice([
        {"missing": True}, {"fifo": True}, {"link": "/dev/zero"}, {"link": "/dev/full"},
        {"link": "{outside}/secret"},
        {"link": "run.json"}, {"link": "../other/run.json"}, {"link": "/proc/self/environ"},
        {"link": "/proc/self/mem"},
        {"mode": 0}, {"size": 0}, {"size": 50_000_000}, {"size": 4_000_000_000}, {"link": "loop"},
        {"link": "/"},
        {"folder": True},
    ]))  # fmt: skip


def _besides(rng: random.Random, names: list[str]) -> dict[str, Content]:
    """Things beside the run's files: where pages go, parts of tables, folders of others."""
    return dict(rng.choice([
        {"work/run/report.html": {"link": "{outside}/secret"}},
        {"work/run/report.html": {"link": "/etc/hostname"}},
        {"work/run/report.html": {"folder": True}},
        {"work/page.html": {"fifo": True}},
        {"work/run/calls.parts/000001.parquet": "x"},
        {"work/run/calls.parts/000001.parquet": {"fifo": True}},
        {"work/run/calls.parts/9999999999999999999999.parquet": "x"},
        {"work/run/calls.parts": {"link": "/"}},
        {"work/run/vms.parts/1x.parquet": "x"}, {"work/x/run.json": {"fifo": True}},
        {"work/x/run.json": {"link": "/dev/zero"}},
        {"work/a/b": {"link": ".."}}, {"work/20261123T160000Z-0": {"folder": True}},
        {"work/run/pickle": "cos\nsystem\n"},
    ]))  # fmt: skip


@functools.cache
def _rows(data: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(data)).to_pylist()
    return rows[:60]


def _changed_table(data: bytes, rng: random.Random) -> bytes:
    """A table whose cells, columns, types or metadata are changed, as a valid parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = json.loads(json.dumps(_rows(data)))
    columns: dict[str, list[Any]] = {
        name: [row[name] for row in rows] for name in (rows[0] if rows else {})
    }
    schema = pq.read_schema(io.BytesIO(data))
    for _ in range(rng.choice([1, 1, 2, 4])):
        if not columns:
            break
        name = rng.choice(list(columns))
        change = rng.randrange(9)
        if change < 4:
            own = [each for each in columns[name] if each is not None]
            value = _of_type(own[0] if own else "", rng)
            columns[name] = [value if rng.random() < 0.4 else each for each in columns[name]]
        elif change == 4:
            columns[name] = [None] * len(columns[name])
        elif change == 5:
            del columns[name]
        elif change == 6:
            columns[mutate.odd_key(rng)] = columns[name]
        elif change == 7:
            columns[name] = [str(each) for each in columns[name]]
        else:
            repeats = rng.choice([0, 1, 50])
            columns = {key: values * repeats for key, values in columns.items()}
    arrays = {}
    for name, values in columns.items():
        type_ = schema.field(name).type if name in schema.names else None
        try:
            arrays[_writable(name)] = pa.array([_writable(each) for each in values], type_)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            try:
                arrays[_writable(name)] = pa.array([_writable(each) for each in values])
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                arrays[_writable(name)] = pa.array([_writable(str(each)) for each in values])
    table = pa.table(arrays)
    if rng.random() < 0.2:
        table = table.replace_schema_metadata(
            {
                rng.choice(["discovery_xp.parts", "pandas", "x"]): _writable(str(mutate.odd(rng)))[
                    :1000
                ]
            }
        )
    out = io.BytesIO()
    pq.write_table(table, out, compression=rng.choice(["zstd", "none", "gzip"]))
    return out.getvalue()


def _of_type(value: Any, rng: random.Random) -> Any:
    """An odd value, most often of the same type."""
    if isinstance(value, bool) or rng.random() < 0.1:
        return mutate.odd(rng) if rng.random() < 0.5 else rng.random() < 0.5
    if isinstance(value, int):
        return rng.choice(
            [each for each in mutate.NUMBERS if isinstance(each, int) and abs(each) < 2**63]
        )
    if isinstance(value, float):
        return float(
            rng.choice(
                [each for each in mutate.NUMBERS if not isinstance(each, int) or abs(each) < 2**63]
            )
        )
    return rng.choice(mutate.ODD_TEXTS)


def _writable(value: Any) -> Any:
    return value.replace("\ud800", "?") if isinstance(value, str) else value


def bases() -> Mapping[str, Any]:
    """Those that cases of runs are laid over."""
    return {name: BASES[name]() for name in ("runs", "reference")}
