"""Messages of RabbitMQ's queues, as the broker counts them anyway."""

from __future__ import annotations

import base64
import re

from ..process import run
from ..wire.counters import WHOLE_BROKER

# What each queue has taken in since it was made, and what of it is left: kept by RabbitMQ
# anyway, so that nothing needs to be switched on.  The last are the whole broker's counters,
# which know of queues that are gone, too.
ASK_RABBITMQ = """
{[catch begin
    {resource, _, queue, Name} = amqqueue:get_name(Q),
    [{messages_ready, Ready}, {messages_unacknowledged, Unacked}, {backing_queue_status, Status}] =
      rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged, backing_queue_status]),
    {queue, binary_to_list(base64:encode(Name)), proplists:get_value(next_seq_id, Status),
     Ready, Unacked}
  end || Q <- rabbit_amqqueue:list()],
 [{total, maps:get(messages_routed_total, C, 0), maps:get(messages_delivered_total, C, 0),
   maps:get(messages_acknowledged_total, C, 0)}
  || {_, C} <- maps:to_list(rabbit_global_counters:overview())]}.
"""


def now() -> dict[str, list[int]]:
    """Return by queue the messages taken in, delivered and acknowledged since it was made."""
    return parse(run(["rabbitmqctl", "--quiet", "eval", ASK_RABBITMQ]))


def parse(text: str) -> dict[str, list[int]]:
    """Return what RabbitMQ printed: Erlang's terms, on as many lines as it likes."""
    text = re.sub(r"\s+", "", text)
    counts = {WHOLE_BROKER: [0, 0, 0]}
    for name, *numbers in re.findall(r'\{queue,"([^"]*)",(\d+),(\d+),(\d+)\}', text):
        delivered, ready, unacked = (int(number) for number in numbers)
        queue = base64.b64decode(name).decode(errors="replace")
        counts[queue] = [delivered, delivered - ready, delivered - ready - unacked]
    for total in re.findall(r"\{total,(\d+),(\d+),(\d+)\}", text):
        counts[WHOLE_BROKER] = [
            sum(pair) for pair in zip(counts[WHOLE_BROKER], map(int, total), strict=True)
        ]
    return counts
