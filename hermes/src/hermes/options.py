"""Options of the driver, in oslo.config's group `oslo_messaging_nats`."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "oslo_messaging_nats"

OPTIONS = [
    cfg.FloatOpt(
        "connect_timeout", default=2.0, min=0.01,
        help="Seconds within which a server has to take a connection.",
    ),
    cfg.FloatOpt(
        "ping_interval", default=5.0, min=0.05,
        help="A server that says nothing for so many seconds is asked whether it is there, and "
        "given up when it stays silent for twice as long.",
    ),
    cfg.FloatOpt(
        "reconnect_delay_max", default=2.0, min=0.05,
        help="Seconds between attempts to connect, at most; the first ones follow each other "
        "sooner.",
    ),
    cfg.IntOpt(
        "send_buffer", default=64, min=1, max=1024,
        help="MiB that may wait to be sent, as there is no connection or it is slow. What comes "
        "beyond waits for its own timeout, and fails then.",
    ),
    cfg.FloatOpt(
        "ask_after", default=5.0, min=0.05,
        help="Seconds after which a call that isn't answered is asked about: whether any server "
        "of its topic knows it.",
    ),
    cfg.FloatOpt(
        "settle_time", default=3.0, min=0.05,
        help="Seconds for which no server of the topic may know a request before it is sent "
        "again. A server that took it and can't be reached for longer may do it a second time.",
    ),
    cfg.FloatOpt(
        "cast_wait", default=1.0, min=0.0,
        help="Seconds that the sender of a cast waits for a server to take it. Then the process "
        "goes on by itself.",
    ),
    cfg.FloatOpt(
        "cast_keep", default=60.0, min=0.0,
        help="Seconds for which a process goes on with a cast that no server takes; it is lost "
        "then, and when the process ends.",
    ),
    cfg.IntOpt(
        "cast_buffer", default=32, min=1, max=1024,
        help="MiB of casts that a process goes on with at a time.",
    ),
    cfg.IntOpt(
        "overload_leave", default=256, min=1,
        help="With so many requests waiting a server leaves its topic, so that others serve it.",
    ),
    cfg.IntOpt(
        "overload_return", default=128, min=0,
        help="With so few requests waiting a server that left its topic comes back.",
    ),
    cfg.FloatOpt(
        "notification_keep", default=86_400.0, min=1.0,
        help="Seconds for which the stream keeps a notification. It holds when the stream is "
        "made, which the first process with a notification does.",
    ),
    cfg.IntOpt(
        "notification_store", default=256, min=1,
        help="MiB of notifications that the stream keeps; the oldest go first.",
    ),
    cfg.FloatOpt(
        "notification_again", default=60.0, min=1.0,
        help="A notification that a listener hasn't acknowledged after so many seconds goes to "
        "another one.",
    ),
    cfg.IntOpt(
        "notification_copies", default=1, min=1, max=5,
        help="Servers of a cluster that keep each notification.",
    ),
    cfg.StrOpt(
        "tls_ca_file", default="",
        help="Whom servers' certificates have to be signed by; the system's authorities if empty.",
    ),
    cfg.StrOpt("tls_cert_file", default="", help="This client's certificate, if it has one."),
    cfg.StrOpt("tls_key_file", default="", help="The key of this client's certificate."),
]  # fmt: skip


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group, for oslo.config's generator."""
    return [(GROUP, OPTIONS)]
