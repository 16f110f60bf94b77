import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery_xp.inputs import units


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("10ms", 10), ("0.5s", 500), ("200us", 0.2), (" 2.5 ms ", 2.5), ("0ms", 0), ("60s", 60_000)],
)
def test_durations(text: str, duration_ms: float) -> None:
    assert units.parse_duration_ms(text) == pytest.approx(duration_ms)


@pytest.mark.parametrize(
    ("value", "reason", "remedy"),
    [
        (10, "'10' has no unit", "write '10ms'"),
        ("10", "'10' has no unit", "write '10ms'"),
        ("-1ms", "'-1ms' is negative", "zero or more"),
        ("61s", "over a minute", "at most '60s'"),
        ("10 parsecs", "unknown unit 'parsecs'", "one of us, ms, s"),
        ("soon", "'soon' is not a duration", "write a number"),
        (True, "'True' is not a duration", "write a number"),
        (None, "'None' is not a duration", "write a number"),
        ("nanms", "is not a duration", "write a number"),
        ("1e3ms", "is not a duration", "write a number"),
    ],
)
def test_a_bad_duration_says_why_and_what_to_write(value: object, reason: str, remedy: str) -> None:
    with pytest.raises(units.QuantityError) as caught:
        units.parse_duration_ms(value)
    assert reason in caught.value.reason
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "rate_mbit"), [("1gbit", 1000), ("100mbit", 100), ("64kbit", 0.064)]
)
def test_rates_are_decimal(text: str, rate_mbit: float) -> None:
    assert units.parse_rate_mbit(text) == pytest.approx(rate_mbit)


@pytest.mark.parametrize("text", ["0mbit", "101gbit", "1.5kbit", "-1mbit", "10", "10mb"])
def test_bad_rates(text: str) -> None:
    with pytest.raises(units.QuantityError):
        units.parse_rate_mbit(text)


@pytest.mark.parametrize("text", ["100%", "101%", "-1%", "0.1", "a%"])
def test_bad_losses(text: str) -> None:
    with pytest.raises(units.QuantityError):
        units.parse_loss_percent(text)


def test_sizes_tell_binary_from_decimal() -> None:
    assert units.parse_memory_bytes("1GiB") == 2**30
    assert units.parse_memory_bytes("1GB") == 10**9


@pytest.mark.parametrize("text", ["0MiB", "31MiB", "512", "1TB"])
def test_bad_memory(text: str) -> None:
    with pytest.raises(units.QuantityError):
        units.parse_memory_bytes(text)


@given(st.floats(min_value=0.001, max_value=60_000).map(lambda number: round(number, 3)))
def test_a_delay_survives_being_written_for_tc(duration_ms: float) -> None:
    assert units.parse_duration_ms(units.format_ms(duration_ms)) == pytest.approx(duration_ms)


@given(st.floats(min_value=0.001, max_value=100_000).map(lambda number: round(number, 3)))
def test_a_rate_survives_being_written_for_tc(rate_mbit: float) -> None:
    written = units.parse_rate_mbit(units.format_rate(rate_mbit))
    assert written == pytest.approx(rate_mbit, abs=0.0006)
