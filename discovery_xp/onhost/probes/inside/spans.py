"""The way of a request through the services: who asked whom, from when to when.

A span begins where a service answers a request or takes a message from the bus; below it are the
requests and messages that it sends, its round trips to a database and to memcached, and what it
hands to other threads.  Nothing is added to a request or message: both ends of one know its id.
What no request leads to, such as periodic tasks, begins no span but at those who answer it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ...wire import spans as wire
from ...wire.probes import template
from . import exchanges
from .current import Span, current, spanned
from .recorder import Recorder

_HEADER = "X-OPENSTACK-REQUEST-ID"
_ID = "req-"
# Nova's own path of VMs; whatever is asked below it but a boot is the load's polling.
_SERVERS = "/servers"


def patches(recorder: Recorder) -> Mapping[str, Callable[[ModuleType], None]]:
    """Return what this probe does to which module."""
    by_module = {
        "gunicorn.workers.gthread": _patch_worker,
        "gunicorn.glogging": _patch_log,
        "oslo_context.context": _patch_ids,
        "keystoneauth1.session": _patch_client,
        "oslo_messaging._drivers.amqpdriver": _patch_sending,
        "oslo_messaging._drivers.amqp": _patch_message_ids,
        "oslo_messaging.rpc.dispatcher": _patch_handling,
        "nova.thread_pool_factory": _patch_threads,
        "pymysql.connections": exchanges.watch_pymysql,
        "rome.driver": exchanges.watch_rome,
        "rome.stores.redis.connection": exchanges.watch_redis,
        "discovery_xp_cache": exchanges.watch_memcached,
    }
    return {module: functools.partial(patch, recorder) for module, patch in by_module.items()}


# ---------------------------------------------------------------- requests that are answered


def _patch_worker(recorder: Recorder, module: ModuleType) -> None:
    """Patch the method that answers a request, in a thread of its own."""

    def begin(_worker: Any, request: Any, *_: Any) -> Span | None:
        if not _is_followed(request.method, request.path):
            return None
        trace = next((value for name, value in request.headers if name == _HEADER), "")
        return Span(
            recorder,
            wire.SERVER,
            f"{request.method} {template(request.path)}",
            trace=trace if trace.startswith(_ID) else "",
        )

    worker = module.ThreadWorker
    worker.handle_request = spanned(recorder, begin, worker.handle_request)


def _is_followed(method: str, path: str) -> bool:
    """Tell whether a request may be part of a boot: of those for servers only the one that is."""
    return _SERVERS not in path or (method == "POST" and path.endswith(_SERVERS))


def _patch_log(recorder: Recorder, module: ModuleType) -> None:
    """Patch what is called with each answer, whose headers name the request and the new VM."""
    access = module.Logger.access

    @functools.wraps(access)
    def noted(self: Any, resp: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            span = current()
            if span is not None and span.kind == wire.SERVER:
                _note_answer(span, str(resp.status), resp.headers)
        except Exception as error:
            recorder.failed(error)
        return access(self, resp, *args, **kwargs)

    module.Logger.access = noted


def _note_answer(span: Span, status: str, headers: Any) -> None:
    for name, value in headers:
        key = name.upper()
        if key == _HEADER and value.startswith(_ID):
            span.link = value
        elif key == "LOCATION" and span.name.endswith(_SERVERS):
            span.server = value.rstrip("/").rpartition("/")[2]
    if status[:1] not in ("1", "2", "3"):
        span.error = f"HTTP {status[:3]}"


def _patch_ids(recorder: Recorder, module: ModuleType) -> None:
    """Patch what names a request that has just arrived: what it leads to is of its trace."""
    generate = module.generate_request_id

    @functools.wraps(generate)
    def noted() -> Any:
        name = generate()
        try:
            span = current()
            if span is not None and span.kind == wire.SERVER and not span.link:
                span.link = name
                span.trace = span.trace or name
        except Exception as error:
            recorder.failed(error)
        return name

    module.generate_request_id = noted  # type: ignore[attr-defined]


# ---------------------------------------------------------------- requests that are made


def _patch_client(recorder: Recorder, module: ModuleType) -> None:
    def begin(_session: Any, url: str, method: str, *_: Any, **__: Any) -> Span | None:
        parent = current()
        if parent is None:
            return None
        rest = url.partition("://")[2]
        server, slash, path = rest.partition("/")
        name = f"{method} {template(slash + path)}"
        return Span(recorder, wire.CLIENT, name, peer=_host_of(server), parent=parent)

    def finish(span: Span, answer: Any) -> None:
        span.link = answer.headers.get(_HEADER) or ""

    session = module.Session
    session._send_request = spanned(recorder, begin, session._send_request, finish)


def _host_of(server: str) -> str:
    """Return the host of HOST:PORT."""
    host, colon, _port = server.rpartition(":")
    return (host if colon else server).strip("[]")


# ---------------------------------------------------------------- messages of the bus


def _patch_sending(recorder: Recorder, module: ModuleType) -> None:
    def begin(
        driver: Any, target: Any, _context: Any, message: Any, wait_for_reply: Any = None,
        *_: Any, **__: Any,
    ) -> Span | None:  # fmt: skip
        parent = current()
        if parent is None:
            return None
        hosts = getattr(driver._url, "hosts", None) or ()
        peer = hosts[0].hostname if hosts else ""
        kind = wire.CALL if wait_for_reply else wire.CAST
        return Span(recorder, kind, _method_of(message), peer=peer or "", parent=parent)

    driver = module.AMQPDriverBase
    driver._send = spanned(recorder, begin, driver._send)


def _patch_message_ids(recorder: Recorder, module: ModuleType) -> None:
    """Patch what gives each message its id, which whoever takes it sees, too."""
    add = module._add_unique_id

    @functools.wraps(add)
    def noted(message: Any) -> Any:
        result = add(message)
        try:
            span = current()
            if span is not None and span.kind in (wire.CALL, wire.CAST) and not span.link:
                span.link = message[module.UNIQUE_ID]
        except Exception as error:
            recorder.failed(error)
        return result

    module._add_unique_id = noted  # type: ignore[attr-defined]


def _patch_handling(recorder: Recorder, module: ModuleType) -> None:
    def begin(_dispatcher: Any, incoming: Any) -> Span:
        context = incoming.ctxt
        watch = getattr(incoming, "stopwatch", None)  # it runs since the message was taken
        return Span(
            recorder,
            wire.HANDLER,
            _method_of(incoming.message),
            trace=context.get("global_request_id") or context.get("request_id") or "",
            link=getattr(incoming, "unique_id", None) or "",
            queued_s=watch.elapsed() if watch is not None else 0.0,
        )

    dispatcher = module.RPCDispatcher
    dispatcher.dispatch = spanned(recorder, begin, dispatcher.dispatch)


def _method_of(message: Mapping[str, Any]) -> str:
    """Return the method that a message is for; of Nova's objects, the object's own."""
    method = str(message.get("method", ""))
    args = message.get("args") or {}
    own = args.get("objmethod")
    if own is None:
        return method
    named = args.get("objname") or (args.get("objinst") or {}).get("nova_object.name", "")
    return f"{named}.{own}"


# ---------------------------------------------------------------- threads


def _patch_threads(recorder: Recorder, module: ModuleType) -> None:
    spawn_on = module.spawn_on

    @functools.wraps(spawn_on)
    def spawn(executor: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        parent = current()
        if parent is None:
            return spawn_on(executor, function, *args, **kwargs)
        parent.write_sums()  # what it asks from now on comes after this, as below any other span
        spawned_at = time.perf_counter()
        name = getattr(function, "__name__", "thread")

        def begin(*_: Any, **__: Any) -> Span:
            waited_s = time.perf_counter() - spawned_at
            return Span(recorder, wire.THREAD, name, parent=parent, queued_s=waited_s)

        return spawn_on(executor, spanned(recorder, begin, function), *args, **kwargs)

    module.spawn_on = spawn  # type: ignore[attr-defined]
