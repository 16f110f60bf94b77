"""What etcd does otherwise than Redis: limits, revisions, reads from the nearest member."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rome.cli import main
from rome.errors import ConflictError
from rome.stores.etcd import indexes, read, view
from rome.stores.etcd.view import View
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError

from tests.etcd_servers import EtcdServer, etcd_server

metadata = MetaData()
hosts = Table(
    "hosts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(40), unique=True),
    Column("site", Integer, index=True),
    Column("note", String(40)),
    Column("data", LargeBinary),
)
guests = Table(
    "guests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", ForeignKey("hosts.id", ondelete="CASCADE"), nullable=False),
)
_numbers = itertools.count()


@pytest.fixture
def url(etcd_server: EtcdServer) -> str:
    """Of an empty database."""
    return etcd_server.url(f"own{next(_numbers)}")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A database with the tables, empty."""
    made = create_engine(url, connect_args={"result_cache": False, "prefetch": False})
    metadata.create_all(made)
    yield made
    made.dispose()


def some(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"name": f"h{n}", "site": n % 7} for n in range(start, start + count)]


def fill(engine: Engine, count: int) -> None:
    for start in range(0, count, 500):
        with engine.begin() as connection:
            connection.execute(insert(hosts), some(min(500, count - start), start))


def trips(connection: Connection) -> int:
    driver: Any = connection.connection.dbapi_connection
    count: int = driver.store.traffic.round_trips
    return count


def count(engine: Engine, table: Table = hosts) -> int:
    with engine.connect() as connection:
        found: int | None = connection.scalar(select(func.count()).select_from(table))
    assert found is not None
    return found


# ---------------------------------------------------------------- round trips


def test_round_trips(engine: Engine) -> None:
    """A level of look-ups is one; so is a commit of rows that the connection has seen."""
    fill(engine, 20)
    with engine.connect() as connection:
        connection.execute(select(hosts).where(hosts.c.id == 1))
        connection.rollback()

        def taken(*statements: Any) -> int:
            before = trips(connection)
            for statement in statements:
                connection.execute(statement)
            connection.commit()
            return trips(connection) - before

        assert taken(select(hosts).where(hosts.c.id == 3)) == 1
        assert taken(select(hosts).where(hosts.c.name == "h3")) == 2
        assert taken(select(hosts).where(hosts.c.site == 3)) == 2
        assert taken(select(guests, hosts).join(hosts).where(guests.c.id == 1)) == 1
        assert taken(update(hosts).where(hosts.c.id == 3).values(site=9)) == 2
        # The first one takes row numbers and a lease for the outcomes of commits.
        taken(insert(guests).values(host=1))
        assert taken(insert(guests).values(host=1)) == 2


def test_a_row_that_another_has_changed_costs_one_more(engine: Engine, url: str) -> None:
    fill(engine, 2)
    more = update(hosts).where(hosts.c.id == 1).values(site=hosts.c.site + 1)
    another = create_engine(url)  # as another process would have
    with engine.connect() as one, another.connect() as other:
        for connection in (one, other):
            connection.execute(more)
            connection.rollback()
        one.execute(more)
        other.execute(update(hosts).where(hosts.c.id == 1).values(data=b"x"))
        other.commit()
        before = trips(one)
        one.commit()  # another column: no conflict, but the row has another revision
        assert trips(one) - before == 2
    another.dispose()
    with engine.connect() as connection:
        assert connection.execute(select(hosts.c.site, hosts.c.data)).first() == (1, b"x")


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("rows", [30, 128, 600])
def test_a_commit_of_more_than_the_operations_of_a_transaction(engine: Engine, rows: int) -> None:
    fill(engine, rows)
    with engine.connect() as one, engine.connect() as other:
        one.execute(update(hosts).values(site=hosts.c.site + 10))
        other.execute(update(hosts).where(hosts.c.id == rows).values(site=hosts.c.site + 100))
        other.commit()
        one.commit()  # with other answers it would fail; these are counts
    with engine.connect() as connection:
        sites = dict(connection.execute(select(hosts.c.id, hosts.c.site)).tuples().all())
    assert sites == {n + 1: n % 7 + 10 + 100 * (n + 1 == rows) for n in range(rows)}


def test_a_large_commit_that_meets_a_conflict_does_nothing(engine: Engine) -> None:
    fill(engine, 300)
    with engine.connect() as one, engine.connect() as other:
        one.execute(update(hosts).where(hosts.c.site < 100).values(site=50))
        seen = one.execute(select(hosts.c.id).where(hosts.c.site == 50)).all()
        assert len(seen) == 300
        other.execute(delete(hosts).where(hosts.c.id == 300))
        other.commit()
        with pytest.raises(OperationalError, match="try again") as failure:
            one.commit()
        assert isinstance(failure.value.orig, ConflictError)
    with engine.connect() as connection:
        assert not connection.execute(select(hosts).where(hosts.c.site == 50)).all()


def test_a_commit_that_is_too_large_says_what_to_do(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(insert(hosts), some(2000))
        with pytest.raises(OperationalError, match=r"--max-txn-ops=128: write in smaller portions"):
            connection.commit()
    assert count(engine) == 0


def test_a_value_that_is_too_large_says_what_to_do(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(insert(hosts), {"name": "x", "data": bytes(3 * 2**20)})
        with pytest.raises(OperationalError, match="--max-request-bytes"):
            connection.commit()
        connection.rollback()
        connection.execute(insert(hosts), {"name": "x", "data": bytes(2**20)})
        connection.commit()
    assert count(engine) == 1


def test_a_member_that_takes_more_operations() -> None:
    with etcd_server(max_txn_ops="512") as server:
        engine = create_engine(server.url("more", txn_ops=512))
        metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(insert(hosts), some(2000))
        assert count(engine) == 2000
        engine.dispose()
        # A URL that says too much.
        engine = create_engine(server.url("more", txn_ops=2048))
        with (
            engine.connect() as connection,
            pytest.raises(OperationalError, match=r"\?txn_ops="),
        ):
            connection.execute(insert(hosts), some(600, 2000))
            connection.commit()
        engine.dispose()


def test_a_full_member_refuses_and_says_what_to_do() -> None:
    with etcd_server(quota_backend_bytes=str(8 * 2**20)) as server:
        engine = create_engine(server.url("full"))
        metadata.create_all(engine)
        written = 0
        with (
            engine.connect() as connection,
            pytest.raises(OperationalError, match="--quota-backend-bytes"),
        ):
            for _ in range(100):
                connection.execute(insert(hosts), {"name": f"f{written}", "data": bytes(2**19)})
                connection.commit()
                written += 1
        assert 0 < written < 100
        assert count(engine) == written
        engine.dispose()


# ---------------------------------------------------------------- one moment


@pytest.fixture
def in_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "PAGE", 50)
    monkeypatch.setattr(read, "PAGE", 50)
    monkeypatch.setattr(view.whole, "__defaults__", (False, 50))


class Between:
    """Does something once, before the third request of the next read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.action: Any = None
        self.requests = 0
        usual = View._ask

        def asked(own: View, ranges: Any) -> Any:
            if self.action is not None and threading.current_thread() is self.thread:
                self.requests += 1
                if self.requests == 3:
                    action, self.action = self.action, None
                    action()
            return usual(own, ranges)

        patch.setattr(View, "_ask", asked)
        self.thread = threading.current_thread()

    def do(self, action: Any) -> None:
        """Do this in another thread, and wait for it."""

        def run() -> None:
            other = threading.Thread(target=action)
            other.start()
            other.join()

        self.requests, self.action = 0, run


@pytest.fixture
def between(in_small_pages: None, monkeypatch: pytest.MonkeyPatch) -> Between:
    return Between(monkeypatch)


def test_a_large_read_is_of_one_moment(engine: Engine, between: Between) -> None:
    fill(engine, 400)

    def others() -> None:
        with engine.begin() as connection:
            connection.execute(update(hosts).values(site=1000))
            connection.execute(insert(hosts), some(3, 400))

    with engine.connect() as connection:
        between.do(others)
        sites = connection.scalars(select(hosts.c.site)).all()
        assert between.action is None
        assert len(sites) == 400 and max(sites) < 7
        assert connection.scalars(select(hosts.c.site)).all() == [1000] * 400 + [1, 2, 3]


def test_what_is_compacted_meanwhile_is_read_anew(
    engine: Engine, between: Between, etcd_server: EtcdServer
) -> None:
    fill(engine, 400)

    def others() -> None:
        with engine.begin() as connection:
            connection.execute(update(hosts).values(site=1000))
        revision = etcd_server.call("/v3/kv/range", key="AA==")["header"]["revision"]
        etcd_server.call("/v3/kv/compaction", revision=revision)

    with engine.connect() as connection:
        between.do(others)
        assert connection.scalars(select(hosts.c.site)).all() == [1000] * 400


def test_first_rows_in_an_order(engine: Engine, in_small_pages: None) -> None:
    fill(engine, 400)
    keys = select(hosts.c.id)
    with engine.connect() as connection:
        for statement, expected in (
            (keys.order_by(hosts.c.id).limit(3), [1, 2, 3]),
            (keys.order_by(hosts.c.id.desc()).limit(3), [400, 399, 398]),
            (keys.where(hosts.c.id > 100).order_by(hosts.c.id).limit(2), [101, 102]),
            (keys.where(hosts.c.id < 100, hosts.c.site == 3).order_by(hosts.c.id.desc()).limit(2),
             [95, 88]),
            (keys.where(hosts.c.site == 3).order_by(hosts.c.id).limit(120), range(4, 401, 7)),
        ):  # fmt: skip
            assert connection.scalars(statement).all() == list(expected)
        assert connection.scalar(select(func.max(hosts.c.id))) == 400
        assert connection.scalar(select(func.count()).where(hosts.c.site == 3)) == 57


# ---------------------------------------------------------------- indexes


@pytest.mark.parametrize(("sort", "column"), [("INDEX", "note"), ("UNIQUE INDEX", "site")])
def test_an_index_is_built_beside_writers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, sort: str, column: str
) -> None:
    """Writers are faster than pages, so the entries go in on a condition each."""
    fill(engine, 300)
    monkeypatch.setattr(indexes, "_PAGE", 40)
    usual = indexes.Indexes._page
    pages = itertools.count()

    def page(own: Any, table: int, span: Any) -> Any:
        found = usual(own, table, span)
        number = next(pages)
        with engine.begin() as connection:
            row = update(hosts).where(hosts.c.id == 300 - number % 50)
            connection.execute(row.values(site=1000 + number, note=f"n{number}"))
        return found

    with engine.begin() as connection:
        connection.execute(update(hosts).values(site=hosts.c.id, note=hosts.c.name))
    monkeypatch.setattr(indexes.Indexes, "_page", page)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE {sort} another ON hosts ({column})"))
    monkeypatch.undo()
    assert next(pages) > 10
    with engine.connect() as connection:
        indexed = hosts.c[column]
        rows = connection.execute(select(hosts.c.id, indexed)).tuples().all()
        for number, value in rows:
            found = connection.scalars(select(hosts.c.id).where(indexed == value)).all()
            assert found == [number]


def test_rows_against_a_unique_index(engine: Engine) -> None:
    fill(engine, 300)
    with engine.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text("CREATE UNIQUE INDEX one_site ON hosts (site)"))
    with engine.begin() as connection:
        connection.execute(insert(hosts), some(10, 300))
    assert count(engine) == 310


def test_nothing_is_left_of_what_is_dropped(
    engine: Engine, url: str, etcd_server: EtcdServer
) -> None:
    fill(engine, 10)
    with engine.begin() as connection:
        connection.execute(insert(guests), [{"host": n} for n in range(1, 11)])
        connection.execute(delete(hosts).where(hosts.c.id == 3))
    assert count(engine, guests) == 9
    metadata.drop_all(engine)
    left = etcd_server.keys(engine.url.database or "")
    assert {key[:2] for key in left} <= {b"ve", b"t:", b"n:"}
    assert [key for key in left if key[:2] == b"n:"] == [b"n:tables"]


def test_outcomes_go_with_their_lease(engine: Engine, etcd_server: EtcdServer) -> None:
    fill(engine, 1)
    database = engine.url.database or ""
    assert [key for key in etcd_server.keys(database) if key.startswith(b"t:")]
    leases = etcd_server.call("/v3/lease/leases")["leases"]
    for lease in leases:
        etcd_server.call("/v3/lease/revoke", ID=lease["ID"])
    assert not [key for key in etcd_server.keys(database) if key.startswith(b"t:")]
    fill(engine, 0)
    with engine.begin() as connection:  # on a lease that is gone
        connection.execute(insert(hosts), some(1, 5))
    assert count(engine) == 2


# ---------------------------------------------------------------- the command


def test_the_command(
    engine: Engine,
    url: str,
    etcd_server: EtcdServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def said(expected: int, *arguments: str) -> str:
        assert main(arguments) == expected
        out, err = capsys.readouterr()
        return out + err

    fill(engine, 600)  # as many as load puts into two commits
    with engine.begin() as connection:
        connection.execute(insert(guests), [{"host": n} for n in range(1, 11)])
    database = engine.url.database or ""
    table = next(line for line in said(0, "inspect", url).splitlines() if "hosts" in line)
    assert table.split()[:2] == ["hosts", "600"]
    assert said(0, "check", url) == "nothing is wrong\n"

    dumped = said(0, "dump", url)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(dumped.encode())))
    copy = etcd_server.url(f"{database}-copy")
    assert said(0, "load", copy) == "tables: 2, rows: 610\n"
    assert said(0, "check", copy) == "nothing is wrong\n"
    assert said(0, "dump", copy) == dumped
    assert said(2, "load", url).startswith("rome: the database isn't empty")

    entries = [key for key in etcd_server.keys(database) if key[:1] in (b"i", b"u", b"o")]
    etcd_server.change(database, {}, entries[:1])
    assert said(1, "check", url).endswith("wrong: 1\n")
    assert "drop the index that is wrong" in said(2, "check", url, "--repair")

    assert "say --yes" in said(2, "drop", url)
    assert said(0, "drop", url, "--yes") == "removed: 2 tables\n"
    assert etcd_server.keys(database) == {}
    assert said(0, "dump", copy) == dumped


# ---------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("reads=stale", "option reads=stale: say linearizable or local"),
        ("txn_ops=4", "must be 32 or more"),
        ("wait=1", "unknown option wait: the options are connect_timeout, foreign_keys, fresh,"),
        ("tag=x", "unknown option tag"),
    ],
)
def test_options(options: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        create_engine(f"rome+etcd://127.0.0.1/nova?{options}").connect()


def test_hosts() -> None:
    for place in ("a,b:1234", "[a:1234,b:1234]"):
        engine = create_engine(f"rome+etcd://{place}/nova")
        _, arguments = engine.dialect.create_connect_args(engine.url)
        server = arguments["store"].args[0]
        assert server.addresses == (("a", 1234), ("b", 1234))
    engine = create_engine("rome+etcd://a/nova")
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert arguments["store"].args[0].addresses == (("a", 2379),)
