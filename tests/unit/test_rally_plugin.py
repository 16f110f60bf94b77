"""What Rally runs, on a cloud that is a dictionary: `send` is the only way out of it."""

import asyncio
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from discovery_xp.onhost.wire.request import LoadRequest

PLUGIN = Path(__file__).parents[2] / "scenarios/rally_plugins/discovery.py"
LOAD = "discovery_xp.onhost.load"


class Session:
    """In aiohttp's and keystoneauth's place; the tests' cloud answers instead."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.tokens = 0

    async def __aenter__(self) -> "Session":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def get_token(self) -> str:
        self.tokens += 1
        return f"token{self.tokens}"

    def invalidate(self) -> None:
        """Nothing to forget."""

    def get_endpoint(self, service_type: str, interface: str, region_name: str) -> str:
        return f"http://{region_name}/{service_type}"


class Clients:
    """In Rally's place."""

    def __init__(self, _credential: Any) -> None:
        session = Session()
        self.keystone = SimpleNamespace(get_session=lambda: (session, None))


def decorator(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda made: made


@pytest.fixture(scope="module")
def plugin() -> Iterator[Any]:
    """The plugin and the load's modules; what they import is on the hosts only."""
    stubs: dict[str, Any] = {
        "aiohttp": {
            "ClientSession": Session,
            "ClientTimeout": SimpleNamespace,
            "TCPConnector": SimpleNamespace,
            "TraceConfig": lambda: SimpleNamespace(on_request_headers_sent=[]),
            "ClientError": type("ClientError", (Exception,), {}),
            "ServerTimeoutError": type("ServerTimeoutError", (TimeoutError,), {}),
        },
        "rally": {},
        "rally.common": {"validation": SimpleNamespace(add=decorator)},
        "rally.task": {"runner": SimpleNamespace(ScenarioRunner=object, configure=decorator)},
        "rally_openstack": {},
        "rally_openstack.common": {"osclients": SimpleNamespace(Clients=Clients)},
        "rally_openstack.task": {
            "scenario": SimpleNamespace(OpenStackScenario=object, configure=decorator)
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, content in stubs.items():
            module = ModuleType(name)
            vars(module).update(content)
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("rally_plugin", PLUGIN)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Rally does it the same way: the module isn't in sys.modules.
        spec.loader.exec_module(module)
        names = ("api", "clock", "generator", "regions")
        yield SimpleNamespace(
            login=module.login,
            **{name: importlib.import_module(f"{LOAD}.{name}") for name in names},
        )
    # Nobody else is to find what imported the stubs.
    for name in [name for name in sys.modules if name.startswith(f"{LOAD}.")]:
        del sys.modules[name]


class Cloud:
    """VMs by id; each gets ACTIVE so many lists after it was asked for."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        self.servers: dict[str, dict[str, Any]] = {}
        self.down: set[str] = set()
        self.refuses: dict[str, tuple[int, str]] = {}
        self.fails: set[str] = set()
        self.stuck: set[str] = set()
        self.silent_until = 0.0
        self.valid_tokens = {"token1", "token2"}
        self.asked: list[tuple[str, str, str]] = []
        self.after_post: Callable[[], None] = lambda: None
        self.orders: list[dict[str, Any]] = []
        self.stays: dict[str, int] = {}  # so many deletions of a VM come to nothing

    async def send(
        self, method: str, url: str, body: Any, headers: dict[str, str], limits: Any
    ) -> tuple[int, bytes]:
        """In place of the plugin's own."""
        await asyncio.sleep(0)
        place = urlsplit(url)
        region, path = place.netloc, place.path
        self.asked.append((method, region, path + ("?" + place.query if place.query else "")))
        if region in self.down:
            raise self.plugin.api.Refusal("ClientConnectorError: refused")
        if "status=" in url and time.monotonic() < self.silent_until:
            raise self.plugin.api.NoAnswer(f"no answer within {limits.total:.0f} s")
        if headers.get("X-Auth-Token", "token1") not in self.valid_tokens:
            return 401, b"{}"
        status, answer = self.answer(method, region, path, parse_qs(place.query), body)
        return status, json.dumps(answer).encode()

    def answer(
        self, method: str, region: str, path: str, query: dict[str, list[str]], body: Any
    ) -> tuple[int, Any]:
        if path == "/compute/flavors":
            return 200, {"flavors": [{"name": "m1.tiny", "id": "1"}]}
        if path == "/image/v2/images":
            return 200, {"images": [{"name": "discovery", "id": "i", "status": "active"}]}
        if method == "POST" and path == "/compute/servers":
            name = body["server"]["name"]
            self.orders.append(body["server"])
            if name in self.refuses:
                status, words = self.refuses[name]
                return status, {"forbidden": {"message": words, "code": status}}
            self.add(name)
            self.after_post()
            return 202, {"server": {"id": f"id-{name}"}}
        if method == "DELETE":
            server_id = path.rpartition("/")[2]
            if self.stays.get(server_id, 0):
                self.stays[server_id] -= 1
            else:
                self.servers.pop(server_id, None)
            return 204, None
        if path.startswith("/compute/servers/id-"):
            return 200, {"server": {"fault": {"message": "No valid host"}}}
        if path.startswith("/compute/servers"):
            return 200, {"servers": [*self.listed(path, query)]}
        return 200, {}

    def add(self, name: str) -> None:
        self.servers[f"id-{name}"] = {"id": f"id-{name}", "name": name, "lists": 0}

    def listed(self, path: str, query: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
        for server in self.servers.values():
            if not re.search(query["name"][0], server["name"]):
                continue
            server["lists"] += 1
            status = "BUILD"
            if server["lists"] > 1 and server["name"] not in self.stuck:
                status = "ERROR" if server["name"] in self.fails else "ACTIVE"
            if "status" in query and status not in query["status"]:
                continue
            details = {"status": status, "OS-EXT-SRV-ATTR:host": "compute-1",
                       "OS-SRV-USG:launched_at": "2026-11-23T16:05:01.000000",
                       "fault": {"message": "No valid host"}}  # fmt: skip
            own = {"id": server["id"], "name": server["name"]}
            yield {**own, **details} if path.endswith("detail") else own


class Tried:
    """A load that was done: its lines, and what Rally got of it."""

    def __init__(self, lines: list[dict[str, Any]], iterations: list[dict[str, Any]]) -> None:
        self.lines = lines
        self.iterations = iterations

    def of(self, line: str) -> list[dict[str, Any]]:
        return [each for each in self.lines if each["line"] == line]

    @property
    def vms(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for each in self.of("vm"):
            known = {key: value for key, value in each.items() if value is not None}
            found.setdefault(each["name"], {}).update(known)
        return found

    @property
    def statuses(self) -> dict[str, str]:
        return {name: vm["status"] for name, vm in self.vms.items()}

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(each["stage"] for each in self.of("stage")))


class Try:
    """Does loads on a cloud of the tests."""

    def __init__(self, plugin: Any, folder: Path) -> None:
        self.plugin = plugin
        self.folder = folder
        self.cloud = Cloud(plugin)

    def __call__(
        self,
        kind: str = "boot",
        counts: tuple[int, ...] = (2, 2),
        warm_up: int = 0,
        computes: tuple[str, ...] = (),
        words: tuple[str, ...] = ("go", "on"),
        placed: Mapping[str, Sequence[str]] | None = None,
        **more: Any,
    ) -> Tried:
        for word in words:
            (self.folder / word).write_text("0")
        records = self.folder / "records.jsonl"
        regions = [
            {
                "name": f"site{number}",
                "site": f"site{number}",
                "count": count,
                "warm_up": warm_up,
                "computes": [each for each in computes if each.startswith(f"site{number}-")],
                "placed": list((placed or {}).get(f"site{number}", ())),
            }
            for number, count in enumerate(counts, start=1)
        ]
        request = {
            "kind": kind, "regions": regions, "concurrency": None, "iterations_before": 0,
            "clears": [region["name"] for region in regions], "flavor": "m1.tiny",
            "image": "discovery", "network": "", "poll_interval_s": 0.01, "vm_timeout_s": 5,
            "run_timeout_s": 5, "delete_after": True, "reads": ["list", "hypervisors"],
            "repeats": 2, "records": str(records), "words": str(self.folder), **more,
        }  # fmt: skip
        iterations: list[dict[str, Any]] = []

        async def run() -> None:
            credential = {"username": "u", "password": "p", "tenant_name": "t",
                          "user_domain_name": "D", "project_domain_name": "D",
                          "auth_url": "http://site1/v3"}  # fmt: skip
            generator = self.plugin.generator.LoadGenerator(
                LoadRequest.from_json(json.loads(json.dumps(request))),
                self.plugin.login(credential), self.plugin.login(credential), iterations.append,
            )  # fmt: skip
            generator.api.send = self.cloud.send
            await generator.run()

        asyncio.run(run())
        return Tried([json.loads(line) for line in records.read_text().splitlines()], iterations)


@pytest.fixture
def attempt(plugin: Any, tmp_path: Path) -> Try:
    return Try(plugin, tmp_path)


def test_vms_go_over_the_regions_in_turn(attempt: Try) -> None:
    done = attempt(counts=(3, 1))
    assert [
        region for method, region, _ in attempt.cloud.asked if method == "POST"
    ] == ["site1", "site2", "site1", "site1"]  # fmt: skip
    assert done.statuses == {
        "load-site1-00001": "ACTIVE",
        "load-site2-00001": "ACTIVE",
        "load-site1-00002": "ACTIVE",
        "load-site1-00003": "ACTIVE",
    }
    for vm in done.vms.values():
        assert vm["requested_at"] <= vm["accepted_at"] <= vm["seen_at"] <= vm["deleted_at"]
        assert (vm["host"], vm["launched_at"]) == ("compute-1", 1795449901.0)
    assert done.of("done")[0]["lost"] == {}
    assert attempt.cloud.servers == {}


def test_an_iteration_of_rally_is_a_vm(attempt: Try) -> None:
    done = attempt("boot-and-delete", iterations_before=10)
    assert [[step["name"] for step in each["atomic_actions"]] for each in done.iterations] == [
        ["boot", "delete"]
    ] * 4
    assert all(each["error"] == [] for each in done.iterations)
    actions = done.of("action")
    assert {(each["action"], each["iteration"]) for each in actions} == {
        (action, number) for action in ("boot", "delete") for number in range(11, 15)
    }


def test_so_many_are_under_way_as_is_wanted(attempt: Try) -> None:
    done = attempt(counts=(4, 4), concurrency=3)
    vms = done.vms.values()
    under_way = [
        sum(vm["requested_at"] <= at < vm["seen_at"] for vm in vms)
        for at in (vm["requested_at"] for vm in vms)
    ]
    assert max(under_way) == 3


def test_polls_are_lists_of_names_since_the_last(attempt: Try) -> None:
    done = attempt(counts=(1,))
    lists = [path for method, _, path in attempt.cloud.asked if "status=ACTIVE" in path]
    assert lists[0] == "/compute/servers?all_tenants=1&status=ACTIVE&name=load-site1-"
    assert all("changes-since" in path for path in lists[1:])
    assert not any("detail" in path for path in lists)
    regions = {region for _, region, path in attempt.cloud.asked if "status=" in path}
    assert regions == {"site1"}
    start, end = (next(u for u in done.of("usage") if u["mark"] == m) for m in ("start", "end"))
    assert end["polls"] - start["polls"] == len(lists)


def test_regions_are_looked_at_in_turn(attempt: Try) -> None:
    attempt.cloud.stuck.add("load-site1-00001")
    done = attempt(counts=(1, 0, 0), vm_timeout_s=0.4)
    assert done.statuses == {"load-site1-00001": "TIMEOUT"}
    looks = [(region, path) for _, region, path in attempt.cloud.asked if "status=ACTIVE" in path]
    assert [region for region, _ in looks[:6]] == ["site1", "site2", "site3"] * 2
    assert looks[0][1] == "/compute/servers?all_tenants=1&status=ACTIVE&name=load-"


def test_each_compute_that_is_named_boots_a_vm_before_the_load(attempt: Try) -> None:
    names = ("site1-compute-1", "site1-compute-2", "site2-compute-1")
    done = attempt(counts=(1, 1), warm_up=1, computes=names)
    orders = attempt.cloud.orders
    assert [order.get("host") for order in orders] == [None, None, *names, None, None]
    assert [order["name"] for order in orders[:3]] == [
        "load-site1-900001", "load-site2-900002", "load-site1-900003",
    ]  # fmt: skip
    assert sorted(done.statuses) == ["load-site1-00001", "load-site2-00001"], "only the load's"
    assert done.stages[:2] == ["warming up", "deleting the warm-up's VMs"]
    assert attempt.cloud.servers == {}


def test_a_load_does_not_begin_where_no_compute_that_is_named_boots_a_vm(attempt: Try) -> None:
    names = ("site1-compute-1", "site1-compute-2", "site2-compute-1")
    attempt.cloud.fails |= {"load-site1-900001"}
    done = attempt(counts=(1, 1), computes=names)
    (note,) = done.of("note")
    assert note["text"] == "warming up, site1-compute-1: ERROR, No valid host"
    assert set(done.statuses.values()) == {"ACTIVE"}, "another compute of site1 does"
    attempt.cloud.fails |= {"load-site2-900003"}
    words = "no compute that site2 was asked for boots a VM: warming up, site2-compute-1: ERROR"
    with pytest.raises(RuntimeError, match=words):
        attempt(counts=(1, 1), computes=names)


@pytest.mark.parametrize("kind", ["boot", "boot-and-delete"])
def test_each_vm_whose_compute_was_drawn_is_asked_for_there(attempt: Try, kind: str) -> None:
    placed = {"site1": ["c2", "c1"], "site2": ["c1"]}
    done = attempt(kind, counts=(2, 1), placed=placed)
    hosts = {order["name"]: order.get("host") for order in attempt.cloud.orders}
    assert hosts == {
        "load-site1-00001": "c2", "load-site1-00002": "c1", "load-site2-00001": "c1",
    }  # fmt: skip
    assert set(done.statuses.values()) == {"ACTIVE"}
    assert attempt.cloud.servers == {}, "admin's VMs are deleted as well"


def test_vms_stay_until_whoever_started_the_load_says_so(
    attempt: Try, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.generator, "WORD_WITHIN_S", 0.2)
    with pytest.raises(RuntimeError, match=r"nobody said 'on' within 0\.2 s"):
        attempt(words=("go",))
    assert len(attempt.cloud.servers) == 4
    assert not [path for method, _, path in attempt.cloud.asked if "detail" in path]


def test_a_vm_that_doesnt_go_is_asked_again_at_the_end(
    attempt: Try, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.clock, "STOOD_STILL_S", 0.3)
    attempt.cloud.stays["id-load-site1-00001"] = 1
    done = attempt()
    failed = [each for each in done.of("action") if each["error"]]
    assert [(each["action"], each["iteration"]) for each in failed] == [("delete", 1)]
    assert re.fullmatch(r"not gone within \d+ s", failed[0]["error"])
    assert done.vms["load-site1-00001"].get("deleted_at") is None
    assert len([vm for vm in done.vms.values() if vm.get("deleted_at")]) == 3
    assert attempt.cloud.servers == {} and done.of("note") == []


def test_what_the_api_refuses_is_told_in_its_words(attempt: Try) -> None:
    attempt.cloud.refuses["load-site1-00001"] = (403, "Quota exceeded")
    done = attempt()
    assert done.vms["load-site1-00001"]["error"] == "HTTP 403: Quota exceeded"
    assert sorted(done.statuses.values()) == ["ACTIVE", "ACTIVE", "ACTIVE", "REFUSED"]
    failed = [each for each in done.iterations if each["error"]]
    assert [each["error"][1] for each in failed] == ["HTTP 403: Quota exceeded"]
    assert done.of("done")[0]["lost"] == {}, "a refusal is an answer"


def test_a_vm_in_error_has_novas_fault(attempt: Try) -> None:
    attempt.cloud.fails.add("load-site2-00002")
    done = attempt()
    vm = done.vms["load-site2-00002"]
    assert (vm["status"], vm["error"]) == ("ERROR", "No valid host")
    assert "seen_at" in vm


def test_a_vm_that_takes_too_long_is_given_up_alone(attempt: Try) -> None:
    attempt.cloud.stuck.add("load-site1-00002")
    done = attempt(vm_timeout_s=0.3)
    vm = done.vms["load-site1-00002"]
    assert vm["status"] == "TIMEOUT"
    assert vm["error"] == "not ACTIVE within 0.3 s; afterwards Nova called it BUILD"
    assert list(done.statuses.values()).count("ACTIVE") == 3
    assert attempt.cloud.servers == {}


def test_an_api_that_is_down_refuses_its_own_vms_only(attempt: Try) -> None:
    attempt.cloud.down.add("site2")
    done = attempt()
    assert [done.statuses[f"load-site{n}-00001"] for n in (1, 2)] == ["ACTIVE", "REFUSED"]
    assert done.of("done")[0]["lost"] == {
        "site2": "site2's API couldn't be reached by 2 requests: ClientConnectorError: refused"
    }


def goes_down(cloud: Cloud, region: str, after: int) -> None:
    """It can't be reached once there are so many VMs."""

    def stop() -> None:
        if len(cloud.servers) == after:
            cloud.down.add(region)

    cloud.after_post = stop


def test_vms_of_an_api_that_goes_down_are_seen_by_another(attempt: Try) -> None:
    goes_down(attempt.cloud, "site2", after=4)
    done = attempt(counts=(2, 2))
    assert set(done.statuses.values()) == {"ACTIVE"}
    assert {vm["host"] for vm in done.vms.values()} == {"compute-1"}
    assert done.of("done")[0]["lost"] == {
        "site2": "site2's API couldn't be reached by 2 requests: ClientConnectorError: refused"
    }
    assert attempt.cloud.servers == {}, "the other API deletes them"


def test_vms_that_no_api_knows_of_are_given_up(
    attempt: Try, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.regions, "GIVE_UP_S", 0.1)
    goes_down(attempt.cloud, "site1", after=2)
    done = attempt(counts=(3,), concurrency=2)
    reason = "site1's API doesn't answer: ClientConnectorError: refused"
    assert [(vm["status"], vm["error"]) for vm in done.vms.values()] == [
        ("TIMEOUT", reason),
        ("TIMEOUT", reason),
        ("REFUSED", reason),
    ]
    assert done.of("done")[0]["lost"] == {"site1": reason}
    assert {each["text"] for each in done.of("note")} == {
        f"looking where the VMs are: {reason}",
        f"clearing the cloud: {reason}",
    }


def test_an_api_that_is_given_up_is_asked_no_more(
    attempt: Try, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.regions, "GIVE_UP_S", 0.1)
    cloud = attempt.cloud
    cloud.stuck |= {"load-site1-00001", "load-site2-00001"}
    goes_down(cloud, "site2", after=2)
    # The first VM keeps the place of the second for long enough, also on a busy machine.
    done = attempt(counts=(2, 2), concurrency=2, vm_timeout_s=2)
    reason = "site2's API doesn't answer: ClientConnectorError: refused"
    assert done.statuses["load-site1-00002"] == "ACTIVE"
    assert done.vms["load-site2-00001"]["error"].startswith("not ACTIVE within 2 s; afterwards")
    assert done.vms["load-site2-00002"]["error"] == reason
    assert done.of("done")[0]["lost"] == {"site2": reason}
    assert cloud.servers == {}, "the other API deletes what is left"


def test_an_api_that_takes_its_time_is_not_given_up(
    attempt: Try, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.regions, "GIVE_UP_S", 0.0)
    attempt.cloud.silent_until = time.monotonic() + 0.3
    done = attempt(counts=(2,), clears=[], delete_after=False)
    assert set(done.statuses.values()) == {"ACTIVE"}
    assert done.of("done")[0]["lost"] == {}


def test_nothing_is_asked_once_the_time_is_up(attempt: Try) -> None:
    attempt.cloud.stuck.add("load-site1-00002")
    done = attempt(counts=(9,), concurrency=1, run_timeout_s=0.5)
    assert done.statuses["load-site1-00001"] == "ACTIVE"
    assert done.vms["load-site1-00002"]["error"].startswith(
        "not ACTIVE when the run's time (0.5 s) was up"
    )
    assert len(done.vms) == 2
    assert done.of("loaded")[0]["time_is_up"] is True


def test_an_old_token_is_renewed_once_for_all(attempt: Try) -> None:
    cloud = attempt.cloud
    cloud.after_post = lambda: cloud.valid_tokens.discard("token1")
    done = attempt(counts=(5, 5))
    assert set(done.statuses.values()) == {"ACTIVE"}


def test_vms_of_earlier_loads_go_first(attempt: Try) -> None:
    for name in ("load-site1-00001", "load-site2-00099", "mine"):
        attempt.cloud.add(name)
    done = attempt(counts=(1, 0))
    assert done.stages[0] == "clearing VMs of earlier loads"
    assert list(attempt.cloud.servers) == ["id-mine"]
    assert done.statuses == {"load-site1-00001": "ACTIVE"}


def test_vms_stay_where_that_is_wanted(attempt: Try) -> None:
    attempt(delete_after=False)
    assert len(attempt.cloud.servers) == 4


def test_reads_go_round_by_round(attempt: Try) -> None:
    done = attempt("reads", counts=(2, 1))
    taken = sorted((each["iteration"], each["action"]) for each in done.of("action"))
    assert taken == [
        (number, action)
        for number in (1, 2, 3)
        for action in ("hypervisors", "hypervisors", "list", "list")
    ]
    assert sorted(each["number"] for each in done.of("iteration")) == [1, 2, 3]
    assert [len(each["atomic_actions"]) for each in done.iterations] == [4, 4, 4]


def test_a_read_that_fails_is_a_row_and_the_round_goes_on(attempt: Try) -> None:
    done = attempt("reads", counts=(1,), reads=["show", "list"], repeats=1)
    assert [(each["action"], each["error"]) for each in done.of("action")] == [
        ("show", "there is no VM to show"),
        ("list", None),
    ]


def test_tokens_ask_for_nothing_else(attempt: Try) -> None:
    done = attempt("authenticate", counts=(2, 2))
    assert [each["action"] for each in done.of("action")] == ["authenticate"] * 4
    assert {path for _, _, path in attempt.cloud.asked} == {"/v3/auth/tokens"}


def test_an_order_that_cannot_be_ends_it_before_the_load(attempt: Try, plugin: Any) -> None:
    with pytest.raises(plugin.api.Refusal, match=r"no flavor 'huge'; it has m1\.tiny"):
        attempt(flavor="huge")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"itemNotFound": {"message": "No flavor", "code": 404}}', "No flavor"),
        (b"<html><h1>Bad</h1> Gateway</html>", "Bad Gateway"),
        (b"[]", "[]"),
        (b"", "no message"),
    ],
)
def test_errors_are_told_in_words(plugin: Any, body: bytes, words: str) -> None:
    assert plugin.api.message_of(body) == words
