"""The driver that oslo.messaging loads for a transport `nats://` or `nats+tls://`."""

from __future__ import annotations

import logging
import os
import ssl
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import oslo_messaging
from hermes import notifications, options, subjects
from hermes.connection import Address, Settings
from hermes.delivery import Patience
from hermes.errors import HermesError
from hermes.notifications import Consumer, Keeping, Notification
from hermes.serving import Marks, Request, Server
from hermes.session import Limits, NotInTime, Route, Session, Undelivered
from oslo_messaging._drivers import base
from oslo_messaging._drivers import common as rpc_common
from oslo_serialization import jsonutils

LOG = logging.getLogger(__name__)

DEFAULT_PORT = 4222
_TLS = "nats+tls"


class Incoming(base.RpcIncomingMessage):  # type: ignore[misc]
    """A request, as oslo.messaging's servers take it."""

    def __init__(self, request: Request) -> None:
        content = jsonutils.loads(request.envelope.body)
        super().__init__(content["context"], content["message"], request.envelope.id)
        self._request = request
        self.client_timeout = request.envelope.more

    def acknowledge(self) -> None:
        """Do nothing: it was taken when it came, as with all drivers."""

    def requeue(self) -> None:
        """Put it behind what waits."""
        self._request.server.requests.put(self._request)

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        """Send what came of it."""
        if not self._request.wants_answer:
            return
        if failure:
            body = rpc_common.serialize_remote_exception(failure)
            self._request.answer(body.encode(), more=1)
        else:
            self._request.answer(jsonutils.dumps(reply).encode())

    def heartbeat(self) -> None:
        """Say that it is still worked on."""
        self._request.heartbeat()


class Listener(base.PollStyleListener):  # type: ignore[misc]
    """Hands requests to a server's loop."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    @base.batch_poll_helper  # type: ignore[untyped-decorator]
    def poll(self, timeout: float | None = None) -> Incoming | None:
        """Return the next request, None when there is none in time or none comes any more."""
        while (request := self._server.get(timeout)) is not None:
            try:
                return Incoming(request)
            except (ValueError, KeyError, TypeError) as error:
                LOG.warning("a request can't be read: %s", error)
        return None

    def stop(self) -> None:
        """Take no more requests."""
        self._server.stop()

    def cleanup(self) -> None:
        """Let go of it."""
        self._server.cleanup()


class IncomingNotification(base.IncomingMessage):  # type: ignore[misc]
    """A notification, as oslo.messaging's listeners take it."""

    def __init__(self, notification: Notification) -> None:
        content = jsonutils.loads(notification.body)
        super().__init__(content["context"], content["message"])
        self._notification = notification

    def acknowledge(self) -> None:
        """Say that it is done."""
        self._notification.acknowledge()

    def requeue(self) -> None:
        """Have it come again."""
        self._notification.requeue()


class NotificationListener(base.PollStyleListener):  # type: ignore[misc]
    """Hands notifications to a listener's loop."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__()
        self._consumer = consumer

    @base.batch_poll_helper  # type: ignore[untyped-decorator]
    def poll(self, timeout: float | None = None) -> IncomingNotification | None:
        """Return the next one, None when there is none in time or none comes any more."""
        while (notification := self._consumer.get(timeout)) is not None:
            try:
                return IncomingNotification(notification)
            except (ValueError, KeyError, TypeError) as error:
                LOG.warning("a notification on %s can't be read: %s", notification.subject, error)
                notification.acknowledge()  # it would come again for ever
        return None

    def stop(self) -> None:
        """Take no more."""
        self._consumer.stop()


# Those of this process: each leaves its connection behind in a forked one.
_drivers: weakref.WeakSet[NatsDriver] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.after_fork()


os.register_at_fork(after_in_child=_after_fork)


class NatsDriver(base.BaseDriver):  # type: ignore[misc]
    """RPC over NATS: a connection for each process and transport."""

    def __init__(
        self,
        conf: Any,
        url: Any,
        default_exchange: str | None = None,
        allowed_remote_exmods: Any = None,
    ) -> None:
        conf.register_opts(options.OPTIONS, group=options.GROUP)
        super().__init__(conf, url, default_exchange, allowed_remote_exmods)
        self._options = conf[options.GROUP]
        self._session: Session | None = None
        self._process = 0
        self._lock = threading.Lock()
        _drivers.add(self)

    # ------------------------------------------------ the connection

    @property
    def session(self) -> Session:
        """The session of this process, which is made when it is first needed."""
        session = self._session
        if session is not None:
            return session
        with self._lock:
            if self._session is None:
                self._session = self._new_session()
            return self._session

    def _new_session(self) -> Session:
        own = self._options
        settings = Settings(
            name=f"{Path(sys.argv[0] or 'python').name}:{os.getpid()}",
            connect_within_s=own.connect_timeout,
            ping_every_s=own.ping_interval,
            retry_most_s=own.reconnect_delay_max,
            most_waiting=own.send_buffer * 2**20,
            tls=self._tls(),
        )
        patience = Patience(ask_after_s=own.ask_after, settle_s=own.settle_time)
        limits = Limits(
            wait_s=own.cast_wait,
            keep_s=own.cast_keep,
            most_kept_bytes=own.cast_buffer * 2**20,
        )
        return Session(addresses_of(self._url), settings, patience, limits)

    def _tls(self) -> ssl.SSLContext | None:
        if self._url.transport != _TLS:
            return None
        own = self._options
        context = ssl.create_default_context(cafile=own.tls_ca_file or None)
        if own.tls_cert_file:
            context.load_cert_chain(own.tls_cert_file, own.tls_key_file or None)
        return context

    def after_fork(self) -> None:
        """Leave the parent its connection; this process makes one of its own when it needs it."""
        self._lock = threading.Lock()
        session, self._session = self._session, None
        if session is not None:
            session.connection.abandon()

    @property
    def _keeping(self) -> Keeping:
        own = self._options
        return Keeping(
            keep_s=own.notification_keep,
            most_bytes=own.notification_store * 2**20,
            again_s=own.notification_again,
            copies=own.notification_copies,
        )

    def _exchange(self, target: Any) -> str:
        return str(target.exchange or self._default_exchange or "")

    # ------------------------------------------------ what oslo.messaging asks for

    def require_features(self, requeue: bool = False) -> None:
        """Accept all features."""

    def send(
        self,
        target: Any,
        ctxt: Any,
        message: Any,
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        call_monitor_timeout: float | None = None,
        retry: int | None = None,
        transport_options: Any = None,
    ) -> Any:
        """Send a request, and return its answer where one is waited for."""
        session = self.session
        exchange, topic = self._exchange(target), target.topic
        body = jsonutils.dumps({"context": ctxt, "message": message}).encode()
        self._require_connection(session, retry, timeout)
        try:
            if target.fanout:
                session.fanout(subjects.fanout(exchange, topic), body)
                return None
            subject = (
                subjects.server(exchange, topic, target.server)
                if target.server
                else subjects.topic(exchange, topic)
            )
            route = Route(subject, subjects.probe(exchange, topic))
            if not wait_for_reply:
                session.cast(route, body)
                return None
            answer = session.call(route, body, timeout, call_monitor_timeout)
        except NotInTime as error:
            raise oslo_messaging.MessagingTimeout(
                f"no answer from topic {topic}"
                + (f", server {target.server}" if target.server else "")
                + f": {error}"
            ) from None
        except (Undelivered, ValueError) as error:
            raise oslo_messaging.MessageDeliveryFailure(str(error)) from None
        if answer.more:
            raise rpc_common.deserialize_remote_exception(
                answer.body.decode(), self._allowed_remote_exmods
            )
        return jsonutils.loads(answer.body)

    def _require_connection(
        self, session: Session, retry: int | None, timeout: float | None
    ) -> None:
        """Raise MessageDeliveryFailure where there is none after so many attempts."""
        if retry is None or retry < 0 or session.connection.is_up:
            return
        within_s = (retry + 1) * self._options.connect_timeout
        latest = time.monotonic() + (within_s if timeout is None else min(within_s, timeout))
        if not session.connection.wait_until_up(max(0.0, latest - time.monotonic())):
            raise oslo_messaging.MessageDeliveryFailure(
                f"no connection to NATS: {session.connection.last_error}"
            )

    def send_notification(
        self, target: Any, ctxt: Any, message: Any, version: float, retry: int | None = None
    ) -> None:
        """Have the stream of notifications take one."""
        body = jsonutils.dumps({"context": ctxt, "message": message}).encode()
        attempts = None if retry is None or retry < 0 else retry + 1
        exchange = self._exchange(target)
        try:
            notifications.send(self.session, self._keeping, exchange, target.topic, body, attempts)
        except HermesError as error:
            raise oslo_messaging.MessageDeliveryFailure(
                f"the notification on {target.topic} can't be kept: {error}"
            ) from None

    def listen(self, target: Any, batch_size: int, batch_timeout: float | None) -> Any:
        """Return a listener of a topic, and of the target's server."""
        marks = Marks(self._options.overload_leave, self._options.overload_return)
        server = Server(self.session, self._exchange(target), target.topic, target.server, marks)
        return base.PollStyleListenerAdapter(Listener(server), batch_size, batch_timeout)

    def listen_for_notifications(
        self, targets_and_priorities: Any, pool: str | None, batch_size: int,
        batch_timeout: float | None,
    ) -> Any:  # fmt: skip
        """Return a listener of notifications, of a pool or of the one that has no name."""
        topics = [
            (self._exchange(target), f"{target.topic}.{priority}")
            for target, priority in targets_and_priorities
        ]
        try:
            consumer = Consumer(self.session, self._keeping, topics, pool)
        except HermesError as error:
            raise oslo_messaging.MessageDeliveryFailure(str(error)) from None
        listener = NotificationListener(consumer)
        return base.PollStyleListenerAdapter(listener, batch_size, batch_timeout)

    def cleanup(self) -> None:
        """End the connection of this process."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()


def addresses_of(url: Any) -> list[Address]:
    """Return the servers that a transport's URL names."""
    return [
        Address(
            host.hostname or "127.0.0.1",
            host.port or DEFAULT_PORT,
            host.username or "",
            host.password or "",
        )
        for host in url.hosts
    ] or [Address("127.0.0.1", DEFAULT_PORT)]
