import dataclasses
import random

import pytest
from enoslib import Host

from discovery_xp.cli.network import change_links
from discovery_xp.errors import Failed, InvalidInput, Refused
from discovery_xp.inputs.topology import Link, Tolerance, parse_topology
from discovery_xp.planning.plan import Plan, PlannedLink, make_plan
from discovery_xp.providers.local import vde
from discovery_xp.testbeds import links, pings
from discovery_xp.testbeds.hosts import Reading
from discovery_xp.testbeds.transport import Output

UNEVEN = """
name: t
sites: [{name: a, computes: 0}, {name: b, computes: 0}, {name: c, computes: 0}]
master: none
network:
  delay: 10ms
  links:
    - {from: a, to: b, delay: 3ms, jitter: 1ms, loss: 0.5%, rate: 100mbit}
    - {between: [b, c], delay: 0ms}
provider: {type: local, network: 10.99.0.0/16}
"""


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_topology(UNEVEN))


def commands_of(plan: Plan) -> dict[str, str]:
    hosts = {host.name: Host(host.address, alias=host.name) for host in plan.hosts}
    devices = {host.name: "eth0" for host in plan.hosts}
    sources = links.htb_sources(plan, plan.links, hosts, devices)
    return {name: " ; ".join(lines) for name, lines in links.tc_commands(sources).items()}


def test_each_host_shapes_what_it_sends_to_each_site(plan: Plan) -> None:
    commands = commands_of(plan)
    assert set(commands) == {"a-controller-1", "b-controller-1", "c-controller-1"}
    sent_by_a = commands["a-controller-1"]
    assert "netem delay 3ms 1ms limit 1000 loss 0.5%" in sent_by_a
    assert "htb rate 100mbit" in sent_by_a
    assert "match ip dst 10.99.2.0/24" in sent_by_a  # b
    assert "match ip dst 10.99.3.0/24" in sent_by_a  # c
    # Nothing is imposed between b and c, and nothing inside a site.
    assert "10.99.3.0/24" not in commands["b-controller-1"]
    assert "10.99.2.0/24" not in commands["b-controller-1"]


def test_the_commands_are_the_same_in_every_run(plan: Plan) -> None:
    assert commands_of(plan) == commands_of(plan)
    first = commands_of(plan)["a-controller-1"]
    assert first.index("10.99.2.0/24") < first.index("10.99.3.0/24")


def test_netems_queue_holds_what_is_on_the_way() -> None:
    # 10 Gbit/s for 50 ms is 41667 packets of 1500 bytes.
    assert links.netem_arguments(Link(delay_ms=50)) == "50ms limit 83333"
    assert links.netem_arguments(Link(delay_ms=1, rate_mbit=10)) == "1ms limit 1000"


QDISCS = """[{"kind":"htb","handle":"1:","root":true,"options":{}},
 {"kind":"netem","handle":"10:","parent":"1:1",
  "options":{"limit":1000,"delay":{"delay":0.003,"jitter":0.001,"correlation":0},
             "loss-random":{"loss":0.005,"correlation":0},"ecn":false,"gap":0}},
 {"kind":"netem","handle":"11:","parent":"1:2",
  "options":{"limit":16667,"delay":{"delay":0.01,"jitter":0,"correlation":0}}}]"""
CLASSES = """class htb 1:1 root leaf 10: prio 0 rate 100Mbit ceil 100Mbit burst 1600b cburst 1600b
class htb 1:2 root leaf 11: prio 0 rate 200Gbit ceil 200Gbit burst 0b cburst 0b
"""
FILTERS = """filter protocol ip pref 49152 u32 chain 0 fh 800::800 order 2048 flowid 1:1 not_in_hw
  match 0a630200/ffffff00 at 16
filter protocol ip pref 49152 u32 chain 0 fh 800::801 order 2049 flowid 1:2 not_in_hw
  match 0a630300/ffffff00 at 16
"""


def test_what_tc_says_becomes_links() -> None:
    read = links.parse_tc(Output(0, "\n==\n".join([QDISCS, CLASSES, FILTERS]), ""))
    assert read == {
        "10.99.2.0/24": Link(3, 1, 0.5, 100),
        "10.99.3.0/24": Link(10, 0, 0, None),
    }


def test_a_host_without_qdiscs_imposes_nothing() -> None:
    assert links.parse_tc(Output(0, "[]\n==\n\n==\n", "")) == {}


def test_a_host_without_tc_is_said_so() -> None:
    with pytest.raises(Failed, match="tc: not found"):
        links.parse_tc(Output(127, "", "sh: tc: not found"))


@pytest.mark.parametrize(
    ("asked", "read", "agrees"),
    [
        (Link(10), Link(10), True),
        (Link(10), Link(10.05), True),  # the kernel's granularity
        (Link(10), Link(11), False),
        (Link(10), Link(), False),  # a command that failed unseen
        (Link(), Link(10), False),  # one left from before
        (Link(10, rate_mbit=100), Link(10), False),
        (Link(10, loss_percent=1), Link(10), False),
        (Link(10, jitter_ms=1), Link(10), False),
    ],
)
def test_readings_are_compared_with_what_was_asked(asked: Link, read: Link, agrees: bool) -> None:
    wrong = links.disagreements([PlannedLink("a", "b", asked)], [Reading("host", "a", "b", read)])
    assert (wrong == []) == agrees


def test_a_link_that_nobody_read_back_disagrees() -> None:
    assert links.disagreements([PlannedLink("a", "b", Link(1))], []) == [
        "a to b: nothing was read back"
    ]


def test_fping_lines_become_samples_without_the_first_ping() -> None:
    text = "10.1.0.1 : 45.0 20.1 - 20.3\nICMP Host Unreachable from 10.1.0.9\n10.1.0.2 : - - - -\n"
    assert pings.parse_fping(text) == {
        "10.1.0.1": [20.1, None, 20.3],
        "10.1.0.2": [None, None, None],
    }


@pytest.mark.parametrize(
    ("requested", "samples", "is_off"),
    [
        (20, [20.4, 20.3, 90.0], False),  # the median ignores a hiccup
        (20, [22.1, 22.2, 22.3], True),
        (20, [17.9, 17.8, 17.7], True),
        (200, [209.0, 209.0], False),  # 5 % is more than 2 ms
        (200, [211.0, 211.0], True),
        (20, [None, None], True),
        (20, [None, 20.0], False),
    ],
)
def test_the_verdict_on_a_pair(requested: float, samples: list[float | None], is_off: bool) -> None:
    pair = pings.summarise("a", "b", (Link(requested), Link()), samples, Tolerance())
    assert pair.is_off is is_off
    if is_off:
        with pytest.raises(Failed, match="a - b"):
            pings.require_within_tolerance([pair])
    else:
        pings.require_within_tolerance([pair])


def judged(there: Link, back: Link, samples: list[float]) -> pings.PairRtt:
    return pings.summarise("a", "b", (there, back), samples, Tolerance())


def test_a_slow_link_may_take_what_a_ping_needs_to_get_through() -> None:
    # 98 bytes take 12.25 ms at 64 kbit/s; each way, a ping may wait for another.
    slow = Link(10, rate_mbit=0.064)
    assert pings.serialisation_ms(slow) == 12.25
    for observed in (18.5, 20.0, 44.5, 69.0, 70.9):
        assert not judged(slow, slow, [observed]).is_off
    for observed in (17.9, 71.1):
        assert judged(slow, slow, [observed]).is_off
    # A quick link is judged as if it had no rate.
    quick = Link(10, rate_mbit=1000)
    assert not judged(quick, quick, [21.9]).is_off
    assert judged(quick, quick, [22.1]).is_off


@pytest.mark.parametrize("seed", range(20))
def test_a_jitter_as_large_as_the_delay_is_within_tolerance(seed: int) -> None:
    drawn = random.Random(seed)
    link = Link(delay_ms=20, jitter_ms=20)
    samples = [drawn.uniform(0, 40) + drawn.uniform(0, 40) for _ in range(20)]
    assert not judged(link, link, samples).is_off
    # A delay that isn't there, or is there twice, is noticed all the same.
    assert judged(link, link, [sample - 40 for sample in samples]).is_off
    assert judged(link, link, [sample + 40 for sample in samples]).is_off


def test_jitter_allows_less_the_more_pings_there_are() -> None:
    link = Link(20, jitter_ms=10)
    allowed = [judged(link, Link(20), [40.0] * count).allowed_ms for count in (1, 4, 100, 10_000)]
    assert allowed == [12.0, 12.0, 6.0, 2.4]
    assert judged(Link(20), Link(20), [40.0]).allowed_ms == 2.0


def test_pings_keep_their_distance_on_a_slow_link() -> None:
    assert pings.pace_of([(Link(10), Link(10))]) == pings.Pace(10, 100, 3020)
    slow = Link(10, rate_mbit=0.001)
    pace = pings.pace_of([(Link(10), Link(10)), (slow, slow)])
    # Two packets of 784 ms each way in each period.
    assert pace == pings.Pace(10, 3136, 3000 + 20 + 4 * 784)
    assert "fping -q -C 11 -p 3136 -i 2 -t 6156 10.0.0.1" in pings.fping_command(["10.0.0.1"], pace)


def test_more_pings_are_sent_where_most_are_lost() -> None:
    assert pings.pace_of([(Link(10, loss_percent=10), Link(10, loss_percent=10))]).pings == 10
    lossy = Link(10, loss_percent=90)
    pace = pings.pace_of([(lossy, lossy)])
    assert pace.pings == 459
    assert (1 - 0.01) ** (2 * pace.pings) < 1e-4


@pytest.mark.parametrize(
    ("samples", "cause"),
    [
        ([None], "where nothing answers, a host or a link is down"),
        ([3.0], "what is too quick isn't delayed as asked"),
        ([20.5, 60.0, 70.0], "a busy machine adds latency of its own to some pings"),
        ([30.0, 60.0], "the network under the links adds latency of its own to every ping"),
    ],
)
def test_the_remedy_names_the_cause(samples: list[float | None], cause: str) -> None:
    pair = pings.summarise("a", "b", (Link(10), Link(10)), samples, Tolerance())
    with pytest.raises(Failed, match="a - b") as caught:
        pings.require_within_tolerance([pair, pair])
    assert str(caught.value).count(cause) == 1
    assert str(caught.value).count("latency of its own") == ("latency" in cause)


def test_what_isnt_tcs_is_said_so() -> None:
    for first in (
        "{",
        "[1]",
        '[{"kind": "netem"}]',
        "[" * 100_000,
        '[{"kind": "netem", "options": 1}]',
    ):
        with pytest.raises(Failed, match="tc says something else"):
            links.parse_tc(Output(0, f"{first}\n==\n\n==\n", ""))


def test_only_what_fping_prints_is_a_sample() -> None:
    text = "10.1.0.1 : 1.2.3\n10.1.0.2 : 1e9\nx : 1.0\n10.1.0.3 : 1.0 2.0\n"
    assert pings.parse_fping(text) == {"10.1.0.3": [2.0]}


# ---------------------------------------------------------------- VDE

SHOWINFO = """WireFilter: bidirectional
Loss   L->R 0.1+0U   R->L 0+0U
Lburst L->R 0+0U   R->L 0+0U
Delay  L->R 30+2U   R->L 12.5+0U
Dup    L->R 0+0U   R->L 0+0U
Bandw  L->R 2.5e+06+0U   R->L 1.25e+08+0U
"""


def test_what_wirefilter_says_becomes_links() -> None:
    there, back = vde.parse_showinfo(SHOWINFO)
    assert there == Link(30, 2, 0.1, 20)
    assert back == Link(12.5, 0, 0, 1000)


def test_a_description_that_cannot_be_read_is_said_so() -> None:
    with pytest.raises(Failed, match="can't be read"):
        vde.parse_showinfo("1000 Success")


def test_order_is_kept_only_where_no_packet_waits_for_another_direction() -> None:
    assert vde.keeps_order(Link(10), Link(10))
    assert not vde.keeps_order(Link(10), Link(20))
    assert not vde.keeps_order(Link(10, jitter_ms=1), Link(10, jitter_ms=1))
    assert not vde.keeps_order(Link(10, rate_mbit=5), Link(10, rate_mbit=5))


# ---------------------------------------------------------------- network set


def changed(plan: Plan, **options: object) -> dict[tuple[str, str], Link]:
    return {
        (link.source, link.target): link.link
        for link in change_links(plan, plan.links, **options)
        if link not in plan.links
    }


def test_set_without_a_pair_changes_all(plan: Plan) -> None:
    assert len(changed(plan, delay="7ms")) == 6


def test_set_changes_one_pair_and_keeps_its_other_values(plan: Plan) -> None:
    assert changed(plan, between=("a", "b"), rtt="40ms") == {
        ("a", "b"): Link(20, 1, 0.5, 100),
        ("b", "a"): Link(20),
    }


def test_set_changes_one_direction(plan: Plan) -> None:
    assert changed(plan, source="c", target="a", loss="1%") == {("c", "a"): Link(10, 0, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to set"),
        ({"between": ("a", "b")}, "nothing to set"),
        ({"delay": "10"}, "--delay: '10' has no unit; write '10ms'"),
        ({"delay": "1ms", "rtt": "2ms"}, "say the same thing twice"),
        ({"delay": "1ms", "jitter": "2ms"}, "the jitter"),
        ({"delay": "1ms", "source": "a"}, "--from A and --to B"),
        ({"delay": "1ms", "between": ("a", "b"), "source": "a", "target": "b"}, "isn't clear"),
        ({"rtt": "1ms", "source": "a", "target": "b"}, "has no direction"),
        ({"delay": "1ms", "between": ("a", "x")}, "no site 'x'"),
        ({"delay": "1ms", "between": ("a", "a")}, "no link to itself"),
    ],
)
def test_bad_sets_are_refused(plan: Plan, options: dict[str, object], message: str) -> None:
    with pytest.raises((Refused, InvalidInput)) as caught:
        change_links(plan, plan.links, **options)
    assert message in str(caught.value)


def test_static_sites_are_covered_exactly() -> None:
    plan = make_plan(
        parse_topology(
            "sites: [{name: a, computes: 3}, {name: b, computes: 0}]\nmaster: none\n"
            "provider: {type: static, hosts: "
            "{a: [10.0.0.4, 10.0.0.5, 10.0.0.6, 10.0.0.7], b: [10.0.0.9]}}"
        )
    )
    assert links.site_prefixes(plan, "a") == ["10.0.0.4/30"]
    assert links.site_prefixes(plan, "b") == ["10.0.0.9/32"]


def test_links_are_described_in_words() -> None:
    assert links.describe(Link(10, 1, 0.1, 1000)) == "10ms ± 1ms, 0.1% loss, 1gbit"
    assert links.describe(dataclasses.replace(Link(), delay_ms=2.5)) == "2.5ms"
