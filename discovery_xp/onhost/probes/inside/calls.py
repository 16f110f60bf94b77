"""Duration of every call of Nova's database API, and of what its objects load later.

A call is what the rest of Nova asks the database layer for, once: a function that calls
another is one call, named after the function of nova.db.main.api that it came to.  Nova
keeps half of its database API elsewhere: functions of nova.objects that are decorated as
readers or writers of one of the two databases.  They count, under their own names.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import FunctionType, ModuleType
from typing import Any

from ...wire.probes import CALL
from .recorder import Recorder

Function = Callable[..., Any]

# In a call: a list that holds the name it gets.  It follows threads and greenlets alike.
_inside: ContextVar[list[str] | None] = ContextVar("discovery_probes_call", default=None)

# They take a context, too, but ask no database.
_HELPERS = {"model_query", "get_context_manager"}
_DECORATORS = (
    "select_db_reader_mode",
    "pick_context_manager_writer",
    "pick_context_manager_reader",
    "pick_context_manager_reader_allow_async",
)


def patches(recorder: Recorder) -> Mapping[str, Callable[[ModuleType], None]]:
    """Return what this probe does to which module."""
    return {
        "nova.db.main.api": functools.partial(_patch_main, recorder),
        "nova.db.api.api": functools.partial(_patch_api, recorder),
        "sqlalchemy.orm.strategies": functools.partial(_patch_relationships, recorder),
        "sqlalchemy.orm.loading": functools.partial(_patch_columns, recorder),
    }


def timed(
    recorder: Recorder, api: str, name: str, function: Function, names_call: bool = False
) -> Function:
    """Return `function` with its outermost calls recorded.

    With `names_call` an outer call that it is part of takes its name.
    """
    record, clock, now = recorder.record, time.perf_counter, time.time
    takes_name = api == "main" and not names_call

    @functools.wraps(function)
    def timed_call(*args: Any, **kwargs: Any) -> Any:
        outer = _inside.get()
        if outer is not None:
            if names_call and not outer:
                outer.append(name)
            return function(*args, **kwargs)
        named: list[str] = [] if takes_name else [name]
        error = ""
        _inside.set(named)
        at, started = now(), clock()
        try:
            return function(*args, **kwargs)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            seconds = clock() - started
            _inside.set(None)
            record((CALL, at, seconds, api, named[0] if named else name, False, error))

    return timed_call


def _patch_main(recorder: Recorder, module: ModuleType) -> None:
    for name, function in list(vars(module).items()):
        if _is_of_database(module, name, function):
            setattr(module, name, timed(recorder, "main", name, function, names_call=True))
    # Objects decorate their own functions with these.
    for name in _DECORATORS:
        decorate = getattr(module, name)

        @functools.wraps(decorate)
        def decorator(function: Function, decorate: Function = decorate) -> Function:
            return timed(recorder, "main", _name_of(function), decorate(function))

        setattr(module, name, decorator)


def _is_of_database(module: ModuleType, name: str, function: Any) -> bool:
    """Tell whether it is a public function of the module itself that is given a context first."""
    if name.startswith("_") or name in _HELPERS or not isinstance(function, FunctionType):
        return False
    if function.__module__ != module.__name__:
        return False
    code = inspect.unwrap(function).__code__
    return bool(code.co_varnames[: code.co_argcount][:1] == ("context",))


def _name_of(function: Function) -> str:
    """Return its name as in its file, with its class and without the functions that it is in."""
    name = getattr(function, "__qualname__", repr(function))
    return name.replace(".<locals>", "")


def _patch_api(recorder: Recorder, module: ModuleType) -> None:
    """Patch the context manager by which objects decorate their functions: there are no others."""
    root = module.context_manager
    kind = type(root.reader)
    decorate = kind.__call__

    @functools.wraps(decorate)
    def decorator(self: Any, function: Function) -> Function:
        decorated: Function = decorate(self, function)
        if getattr(self, "_root", root) is not getattr(root, "_root", root):
            return decorated
        return timed(recorder, "api", _name_of(function), decorated)

    kind.__call__ = decorator


# ---------------------------------------------------------------- what is loaded later


def _patch_relationships(recorder: Recorder, module: ModuleType) -> None:
    """Patch the loader's step that sends the statement; eager loads don't come through here."""
    loader = getattr(module, "LazyLoader", None) or module._LazyLoader
    load = loader._emit_lazyload

    @functools.wraps(load)
    def timed_load(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _inside.get() is not None:
            return load(self, *args, **kwargs)
        return _time_later(recorder, self.parent, self.key, load, self, *args, **kwargs)

    loader._emit_lazyload = timed_load


def _patch_columns(recorder: Recorder, module: ModuleType) -> None:
    """Patch the loading of columns that were deferred, or forgotten as a transaction ended."""
    present = [name for name in ("load_scalar_attributes", "_load_scalar_attributes")
             if hasattr(module, name)]  # fmt: skip
    load = getattr(module, present[-1])

    @functools.wraps(load)
    def timed_load(mapper: Any, state: Any, names: Any, *args: Any, **kwargs: Any) -> Any:
        if _inside.get() is not None or state.session is None:
            return load(mapper, state, names, *args, **kwargs)
        key = next(iter(names)) if names and len(names) == 1 else "*"
        return _time_later(recorder, mapper, key, load, mapper, state, names, *args, **kwargs)

    setattr(module, present[-1], timed_load)


def _time_later(
    recorder: Recorder, mapper: Any, key: str, load: Function, *args: Any, **kwargs: Any
) -> Any:
    error = ""
    _inside.set([])
    at, started = time.time(), time.perf_counter()
    try:
        return load(*args, **kwargs)
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        seconds = time.perf_counter() - started
        _inside.set(None)
        model = getattr(mapper, "class_", None)
        place = getattr(model, "__module__", "")
        api = "api" if place.startswith("nova.db.api") else "main"
        name = f"{getattr(model, '__name__', '?')}.{key}"
        recorder.record((CALL, at, seconds, api, name, True, error))
