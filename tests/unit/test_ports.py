"""What listens where: the table, its page, and what is told from it."""

from pathlib import Path

import pytest

from discovery_xp.deployment import variables
from discovery_xp.deployment.variables import FirewallVariables, play_variables
from discovery_xp.inputs.topology import derive_topology, parse_topology
from discovery_xp.onhost import catalogue
from discovery_xp.planning import ports
from discovery_xp.planning.plan import make_plan
from discovery_xp.providers import static
from discovery_xp.testbeds.testbed import State, Testbed

PAGE = Path(__file__).parents[2] / "docs/ports.md"

MASTER = """\
tcp   LISTEN 0      1024       10.0.1.1:11211      0.0.0.0:*    users:(("memcached",pid=415,fd=22))
tcp   LISTEN 0      1024      127.0.0.1:11211      0.0.0.0:*    users:(("memcached",pid=415,fd=23))
tcp   LISTEN 0      2048       10.0.1.1:8778       0.0.0.0:*    users:(("gunicorn: worke",pid=663,fd=3),("gunicorn: maste",pid=662,fd=3))
tcp   LISTEN 0      2048      127.0.0.1:9696       0.0.0.0:*    users:(("gunicorn: worke",pid=689,fd=4))
tcp   LISTEN 0      2048       10.0.1.1:9292       0.0.0.0:*    users:(("gunicorn: worke",pid=638,fd=4))
tcp   LISTEN 0      128       127.0.0.1:25672      0.0.0.0:*    users:(("beam.smp",pid=287,fd=18))
tcp   LISTEN 0      2048       10.0.1.1:5000       0.0.0.0:*    users:(("gunicorn: worke",pid=611,fd=3))
tcp   LISTEN 0      4096      127.0.0.1:4369       0.0.0.0:*    users:(("epmd",pid=347,fd=3),("systemd",pid=1,fd=50))
tcp   LISTEN 0      128        10.0.1.1:5672       0.0.0.0:*    users:(("beam.smp",pid=287,fd=35))
tcp   LISTEN 0      850        10.0.1.1:3306       0.0.0.0:*    users:(("mariadbd",pid=129,fd=21))
tcp   LISTEN 0      128         0.0.0.0:22         0.0.0.0:*    users:(("sshd",pid=19,fd=3))
tcp   LISTEN 0      128            [::]:22            [::]:*    users:(("sshd",pid=19,fd=4))
"""  # noqa: E501


def differences(text: str, *roles: str) -> list[str]:
    return ports.differences("10.0.1.1", roles, ports.read_sockets(text))


def test_the_page_has_the_table() -> None:
    assert ports.as_markdown() in PAGE.read_text()


def test_what_listens_as_the_table_says_differs_in_nothing() -> None:
    assert differences(MASTER, "master") == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("10.0.1.1:5672", "RabbitMQ listens at 0.0.0.0:5672"),
        ("127.0.0.1:4369", "Erlang's port mapper listens at 0.0.0.0:4369"),
        ("10.0.1.1:3306", "MariaDB listens at 0.0.0.0:3306"),
    ],
)
def test_a_wider_address_than_the_tables_is_told(found: str, says: str) -> None:
    wide = MASTER.replace(f"{found} ", f"0.0.0.0:{found.partition(':')[2]} ", 1)
    assert differences(wide, "master") == [says]
    every = MASTER.replace(f"{found} ", f"[::]:{found.partition(':')[2]} ", 1)
    assert differences(every, "master") == [says.replace("0.0.0.0", "::")]


def test_what_the_table_lacks_is_told() -> None:
    extra = 'tcp LISTEN 0 5 127.0.0.1:5201 0.0.0.0:* users:(("iperf3",pid=1,fd=3))\n'
    extra += 'udp UNCONN 0 0 10.0.1.1%eth0:68 0.0.0.0:* users:(("dhclient",pid=2,fd=7))\n'
    assert differences(MASTER + extra, "master") == [
        "iperf3 listens at tcp port 5201",
        "dhclient listens at udp port 68",
    ]


def test_another_program_at_a_port_of_the_table_is_told() -> None:
    other = MASTER.replace('"memcached",pid=415,fd=22', '"nc",pid=9,fd=3')
    assert differences(other, "master") == ["nc listens at memcached's port 11211"]


def test_a_service_of_another_role_is_told_and_one_that_is_missing() -> None:
    assert "RabbitMQ doesn't listen at port 5672" in differences("", "master")
    assert differences("", "compute") == ["ssh doesn't listen at port 22"]
    told = differences(MASTER, "compute")
    assert "mariadbd listens at tcp port 3306" in told
    assert not [line for line in told if "22" in line.split()]


def test_a_line_that_is_none_of_ss_is_refused() -> None:
    with pytest.raises(ValueError, match="not a line of ss"):
        ports.read_sockets("command not found\n")


def test_ports_that_others_know_are_in_the_table() -> None:
    listed = {port for each in ports.LISTENERS for port in each.ports}
    plan = make_plan(derive_topology(2, None), "mine", cloud=True)
    known = {each.port for each in plan.require_cloud().services if each.port is not None}
    known |= catalogue.TRAFFIC.keys() | set(variables.PORTS.values())
    assert known <= listed
    assert known <= set(ports.CLOUD_PORTS)
    assert 22 not in ports.CLOUD_PORTS


# ---------------------------------------------------------------- the firewall of lent hosts

STATIC = """
name: mine
sites: [{name: a}]
provider: {type: static, hosts: {a: [192.0.2.1, 192.0.2.2, 192.0.2.3]}}
"""


@pytest.fixture
def testbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Testbed:
    monkeypatch.setenv("DISCOVERY_XP_HOME", str(tmp_path))
    made = Testbed("mine")
    made.folder.mkdir(parents=True)
    made.write_ssh_config({}, check_keys="no")
    return made


def test_lent_hosts_keep_the_clouds_ports_for_each_other_unless_exposed(testbed: Testbed) -> None:
    plan = make_plan(parse_topology(STATIC), cloud=True)
    state = State(plan=plan, phase="acquiring", created="2027-01-01T00:00:00Z")
    testbed.save(state)
    hosts = static.hosts(plan, testbed)
    assert play_variables(hosts, testbed).cloud.firewall == FirewallVariables(
        tuple(str(host.address) for host in plan.hosts), ports.CLOUD_PORTS
    )
    testbed.update(exposed=True)
    assert testbed.load().exposed
    assert play_variables(hosts, testbed).cloud.firewall is None
