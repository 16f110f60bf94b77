"""The probe `spans`, on fakes of what it patches: what it records of a request, and what it leaves
alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from discovery_xp.onhost import checks
from discovery_xp.onhost.probes.inside import current, spans, statements
from discovery_xp.onhost.wire import probes as lines
from discovery_xp.onhost.wire import spans as wire

PLACE = {"host": "site1-controller-1", "site": "site1"}
REQUEST_ID = "req-0b3c2f9e-52f1-4f6c-9d2e-0123456789ab"
CALLERS_ID = "req-ffffffff-52f1-4f6c-9d2e-0123456789ab"
SERVER_ID = "0b3c2f9e-52f1-4f6c-9d2e-0123456789ab"


class Kept:
    """In a recorder's place."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.problems: list[str] = []

    def record(self, record: tuple[Any, ...]) -> None:
        self.records.append(record)

    def failed(self, error: BaseException) -> None:
        self.problems.append(repr(error))

    def rows(self) -> dict[str, dict[str, Any]]:
        """What a reader gets of it, by name."""
        text = "@\tnova-api\t17\n" + lines.encode(self.records, 0, 1)
        parsed = lines.parse(text, PLACE, pytest.fail)
        return {row["name"]: row for table, row in parsed if table == "spans"}


@pytest.fixture
def kept() -> Iterator[Kept]:
    kept = Kept()
    yield kept
    assert current.current() is None
    assert kept.problems == []


def patched(kept: Kept, name: str, **members: Any) -> Any:
    """A module of that name, as the probe has it."""
    module = ModuleType(name)
    vars(module).update(members)
    spans.patches(kept)[name](module)  # type: ignore[arg-type]
    return module


class Service:
    """A service under gunicorn: answers what it is told to, after it has done something."""

    def __init__(self, kept: Kept) -> None:
        self.log = patched(
            kept,
            "gunicorn.glogging",
            Logger=type(
                "Logger", (), {"access": lambda self, resp, req, environ, request_time: None}
            ),
        ).Logger()
        self.ids = patched(kept, "oslo_context.context", generate_request_id=lambda: REQUEST_ID)
        self.does: Any = lambda: None
        self.status, self.headers = "202 Accepted", [("x-openstack-request-id", REQUEST_ID)]

        def handle_request(worker: Any, request: Any, connection: Any) -> bool:
            self.ids.generate_request_id()
            self.does()
            resp = SimpleNamespace(status=self.status, headers=self.headers)
            self.log.access(resp, request, {}, None)
            return True

        worker = type("ThreadWorker", (), {"handle_request": handle_request})
        self.worker = patched(kept, "gunicorn.workers.gthread", ThreadWorker=worker).ThreadWorker()

    def ask(self, method: str, path: str, **headers: str) -> None:
        request = SimpleNamespace(
            method=method, path=path,
            headers=[(name.upper().replace("_", "-"), value) for name, value in headers.items()],
        )  # fmt: skip
        assert self.worker.handle_request(request, None) is True


def test_a_request_to_boot_says_which_vm_it_made(kept: Kept) -> None:
    service = Service(kept)
    service.headers.append(("Location", f"http://10.0.0.1:8774/v2.1/servers/{SERVER_ID}"))
    service.ask("POST", "/v2.1/servers")
    (row,) = kept.rows().values()
    assert (row["kind"], row["name"]) == ("server", "POST /v2.1/servers")
    assert (row["server_id"], row["link"], row["trace"]) == (SERVER_ID, REQUEST_ID, REQUEST_ID)
    assert (row["parent"], row["error"], row["peer"]) == (None, None, None)


def test_a_request_of_another_service_belongs_to_its_callers_trace(kept: Kept) -> None:
    service = Service(kept)
    service.status = "409 Conflict"
    service.ask("PUT", f"/allocations/{SERVER_ID}", x_openstack_request_id=CALLERS_ID)
    (row,) = kept.rows().values()
    assert (row["name"], row["trace"], row["link"]) == (
        "PUT /allocations/{id}", CALLERS_ID, REQUEST_ID,
    )  # fmt: skip
    assert row["error"] == "HTTP 409"


@pytest.mark.parametrize("path", ["/v2.1/servers/detail", f"/v2.1/servers/{SERVER_ID}"])
def test_the_loads_polling_is_not_followed(kept: Kept, path: str) -> None:
    service = Service(kept)
    seen: list[Any] = []
    service.does = lambda: seen.append(current.current())
    service.ask("GET", path)
    assert seen == [None] and kept.records == []


def test_what_a_service_asks_meanwhile_is_below_it(kept: Kept) -> None:
    service = Service(kept)
    answer = SimpleNamespace(headers={"X-OPENSTACK-REQUEST-ID": CALLERS_ID})
    kind = type("Session", (), {"_send_request": lambda self, url, method, *_: answer})
    session = patched(kept, "keystoneauth1.session", Session=kind).Session()
    amqp = patched(
        kept, "oslo_messaging._drivers.amqp", UNIQUE_ID="_unique_id",
        _add_unique_id=lambda message: message.update({"_unique_id": "m-1"}),
    )  # fmt: skip

    class Driver:
        _url = SimpleNamespace(hosts=[SimpleNamespace(hostname="10.0.0.9")])

        def _send(self, target: Any, context: Any, message: Any, wait_for_reply: Any = None) -> Any:
            amqp._add_unique_id(message)

    driver = patched(kept, "oslo_messaging._drivers.amqpdriver", AMQPDriverBase=Driver)
    save = {"method": "object_action", "args": {
        "objmethod": "save", "objinst": {"nova_object.name": "Instance"}}}  # fmt: skip

    def work() -> None:
        session._send_request("http://10.0.0.2:8778/allocation_candidates?limit=1", "GET", 30)
        driver.AMQPDriverBase()._send(None, {}, {"method": "build_and_run_instance"})
        driver.AMQPDriverBase()._send(None, {}, save, wait_for_reply=True)

    work()  # for no request: not recorded
    assert kept.records == []
    service.does = work
    service.ask("POST", "/v2.1/servers")
    rows = kept.rows()
    root = rows["POST /v2.1/servers"]
    asked = rows["GET /allocation_candidates"]
    assert (asked["kind"], asked["peer"], asked["link"]) == ("client", "10.0.0.2", CALLERS_ID)
    sent, called = rows["build_and_run_instance"], rows["Instance.save"]
    assert (sent["kind"], sent["peer"], sent["link"]) == ("cast", "10.0.0.9", "m-1")
    assert (called["kind"], called["link"]) == ("call", "m-1")
    for row in (asked, sent, called):
        assert row["parent"] == root["span"] and row["trace"] == REQUEST_ID
        assert root["at"] <= row["at"]
        assert row["at"] + row["duration_ms"] / 1000 <= root["at"] + root["duration_ms"] / 1000 + 1


def test_a_message_is_known_by_its_id_and_says_how_long_it_waited(kept: Kept) -> None:
    class Dispatcher:
        def dispatch(self, incoming: Any) -> Any:
            raise LookupError("no such method")

    dispatcher = patched(kept, "oslo_messaging.rpc.dispatcher", RPCDispatcher=Dispatcher)
    incoming = SimpleNamespace(
        ctxt={"request_id": REQUEST_ID, "global_request_id": None}, unique_id="m-7",
        message={"method": "object_class_action_versions", "args": {
            "objname": "Service", "objmethod": "get_by_compute_host"}},
        stopwatch=SimpleNamespace(elapsed=lambda: 0.25),
    )  # fmt: skip
    with pytest.raises(LookupError):
        dispatcher.RPCDispatcher().dispatch(incoming)
    (row,) = kept.rows().values()
    assert (row["kind"], row["name"]) == ("handler", "Service.get_by_compute_host")
    assert (row["link"], row["trace"], row["queued_ms"]) == ("m-7", REQUEST_ID, 250)
    assert row["error"] == "LookupError"


def test_work_in_another_thread_is_below_whoever_gave_it(kept: Kept) -> None:
    threads: list[threading.Thread] = []

    def spawn_on(executor: str, function: Any, *args: Any) -> None:
        threads.append(threading.Thread(target=function, args=args))

    factory = patched(kept, "nova.thread_pool_factory", spawn_on=spawn_on)
    done: list[Any] = []

    def build(what: str) -> None:
        span = current.current()
        done.append((what, span.kind if span else None))

    factory.spawn_on("LONG", build, "unasked")
    span = current.Span(kept, wire.HANDLER, "build_and_run_instance")  # type: ignore[arg-type]
    span.asked(wire.DATABASE, "SELECT", "10.0.0.1", 2, 0.01)
    factory.spawn_on("LONG", build, "asked")
    span.asked(wire.DATABASE, "SELECT", "10.0.0.1", 3, 0.01)
    span.end()
    for thread in threads:
        thread.start()
        thread.join()
    assert done == [("unasked", None), ("asked", "thread")]
    build_row, handler = kept.rows()["build"], kept.rows()["build_and_run_instance"]
    assert build_row["parent"] == handler["span"] and build_row["queued_ms"] >= 0
    # What was asked before it was given away, and what came after, are apart.
    assert [record[13] for record in kept.records if record[5] == wire.DATABASE] == [2, 3]


def test_round_trips_are_summed_up_until_the_next_span_begins(kept: Kept) -> None:
    span = current.Span(kept, wire.SERVER, "outer")  # type: ignore[arg-type]
    for _ in range(3):
        span.asked(wire.DATABASE, "SELECT", "10.0.0.1", 1, 0.01)
    inner = current.Span(kept, wire.CLIENT, "inner", parent=span)  # type: ignore[arg-type]
    inner.end()
    span.asked(wire.DATABASE, "SELECT", "10.0.0.1", 1, 0.01)
    span.end()
    sums = [record for record in kept.records if record[5] == wire.DATABASE]
    assert [(record[12], record[13]) for record in sums] == [(3, 3), (1, 1)]
    assert {record[10] for record in sums} == {span.id}
    assert sums[0][2] == pytest.approx(0.03)


def test_both_probes_count_one_drivers_statements(kept: Kept) -> None:
    class Connection:
        host = "10.0.0.1"
        _rfile = None

        def query(self, sql: bytes) -> None:
            self._execute_command(3, sql)
            self._read_query_result()

        def _execute_command(self, command: int, sql: bytes) -> None: ...
        def _read_query_result(self) -> None: ...

        _write_bytes = connect = _get_server_information = _request_authentication = (
            _read_ok_packet
        ) = _read_query_result

    driver: Any = ModuleType("pymysql.connections")
    driver.Connection = Connection
    statements.patches(kept)["pymysql.connections"](driver)  # type: ignore[arg-type]
    spans.patches(kept)["pymysql.connections"](driver)  # type: ignore[arg-type]
    connection = driver.Connection()
    connection.query(b"SELECT 1")
    span = current.Span(kept, wire.SERVER, "outer")  # type: ignore[arg-type]
    connection.query(b"INSERT 2")
    span.end()
    counted = [record[1] for record in kept.records if record[0] == lines.STATEMENT]
    assert counted == ["SELECT", "INSERT"]
    row = kept.rows()["INSERT"]
    assert (row["kind"], row["peer"], row["round_trips"]) == ("database", "10.0.0.1", 1)
    assert row["parent"] == span.id


def test_romes_statements_are_what_was_waited_for_redis_and_its_node(kept: Kept) -> None:
    class Wire:
        node = SimpleNamespace(address=("10.0.2.5", 6379))

        def _exchange(self, commands: Any, stop: Any) -> list[Any]:
            return [commands]

    connection = patched(kept, "rome.stores.redis.connection", Wire=Wire)
    driver = patched(kept, "rome.driver", observers=[])
    redis = connection.Wire()
    redis._exchange(["before"], None)
    span = current.Span(kept, wire.HANDLER, "outer")  # type: ignore[arg-type]
    assert redis._exchange(["one"], None) == [["one"]]
    redis._exchange(["two"], None)
    driver.observers[0]("SELECT", 1, 2, 100, 100, 99.0)
    driver.observers[0]("UPDATE", 1, 0, 0, 0, 99.0)  # asked nothing
    span.end()
    (sums,) = [record for record in kept.records if record[5] == wire.DATABASE]
    assert (sums[6], sums[7], sums[13]) == ("SELECT", "10.0.2.5", 2)
    assert sums[2] < 1.0  # not ROME's own time


def test_memcached_is_asked_by_whoever_answers(kept: Kept) -> None:
    class Memcached:
        _client = SimpleNamespace(server=("10.0.0.1", 11211))

        def _ask(self, ask: Any, otherwise: Any) -> Any:
            return ask()

    cache = patched(kept, "discovery_xp_cache", Memcached=Memcached).Memcached()
    assert cache._ask(lambda: 1, None) == 1
    span = current.Span(kept, wire.SERVER, "outer")  # type: ignore[arg-type]
    assert cache._ask(lambda: 2, None) == 2
    span.end()
    assert kept.rows()["memcached"]["peer"] == "10.0.0.1"


def test_what_goes_wrong_in_the_probe_is_counted_and_goes_no_further() -> None:
    kept = Kept()

    class Dispatcher:
        def dispatch(self, incoming: Any) -> str:
            return "handled"

    dispatcher = patched(kept, "oslo_messaging.rpc.dispatcher", RPCDispatcher=Dispatcher)
    assert dispatcher.RPCDispatcher().dispatch("no message") == "handled"
    assert kept.records == [] and len(kept.problems) == 1


# ---------------------------------------------------------------- hostile records

RECORD = ("p", 5.0, 0.1, 0.01, 0.02, "call", "save", "10.0.0.1", "req-1", "a", "b", "c", 1, 2,
          "id", "")  # fmt: skip


def test_a_span_is_read_as_it_was_recorded() -> None:
    text = lines.encode([RECORD], 0, 1)
    ((table, row),) = lines.parse(f"@\tnova-api\t1\n{text}", PLACE, pytest.fail)
    assert table == "spans"
    assert row == {
        "at": 5.0, "service": "nova-api", **PLACE, "kind": "call", "name": "save",
        "peer": "10.0.0.1", "peer_site": None, "trace": "req-1", "span": "a", "parent": "b",
        "link": "c", "server_id": "id", "duration_ms": 100.0, "cpu_ms": 10.0, "queued_ms": 20.0,
        "count": 1, "round_trips": 2, "error": None,
    }  # fmt: skip
    assert lines.is_within(text, 4, 6) and not lines.is_within(text, 6, 7)


@pytest.mark.parametrize(
    ("place", "value"),
    [(1, "nan"), (2, "inf"), (3, "x"), (5, "spy"), (12, "-1"), (13, "1.5"), (13, "9" * 30)],
)
def test_what_is_no_span_is_refused(place: int, value: str) -> None:
    fields = lines.encode([RECORD], 0, 1).rstrip("\n").split("\t")
    fields[place] = value
    with pytest.raises(checks.Unfit):
        list(lines.parse("\t".join(fields), PLACE, pytest.fail))


def test_names_of_others_stay_in_their_field() -> None:
    record = list(RECORD)
    record[6] = "GET /\tx\ny" + "z" * 1000
    text = lines.encode([tuple(record)], 0, 1)
    assert text.count("\n") == 1 and text.count("\t") == wire.FIELDS
    ((_, row),) = lines.parse(text, PLACE, pytest.fail)
    assert row["name"].startswith("GET / x y") and len(row["name"]) == 200
