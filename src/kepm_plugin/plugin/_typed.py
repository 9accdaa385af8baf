"""Types at run time, for tests: what a publisher is given, and what a command's handler returns, is what it says.

A plugin that runs at an agent does not check: decoding each message again would cost as much as sending it, and the
checkers have read the code.
"""

from collections.abc import Callable
from copy import copy
from functools import wraps
from inspect import get_annotations, getattr_static, iscoroutinefunction
from typing import Any, Final, Never, NoReturn

from ..errors import BadPayload, PayloadMismatch
from ..message import encode_json, fitting
from ._annotations import annotated, namespace
from ._publish import Publisher

MARK: Final = "__kepm_typed__"
"""On a plugin object that checks."""


def check_types(plugin: Any) -> None:
    """Have a plugin object check its types, in its publishers and in the handlers that are made for it."""
    kind: Any = plugin.__class__
    for name in dir(kind):
        publisher: Any = getattr_static(kind, name)
        if issubclass(type(publisher), Publisher):
            checking = copy(publisher)
            fits, where = fitting(checking.payload_type), f"{checking.owner}.publish()"
            checking.encode = _checked_encode(checking.encode, fits, where)
            vars(plugin)[name] = checking.__get__(plugin, kind)  # An attribute of the object goes before the class's.
    vars(plugin)[MARK] = True


def typed_handle(handler: Any) -> None:
    """Have a handler of a plugin that checks return what its `handle` is annotated with."""
    kind: Any = handler.__class__
    handle: Any = getattr(handler, "handle", None)
    function: Any = getattr(kind, "handle", None)
    checks = MARK in getattr(handler.plugin, "__dict__", ())  # Whatever a test of its own gives for the plugin.
    if handle is None or not checks or "return" not in get_annotations(function):
        return
    where = f"{kind.__qualname__}.handle"
    annotation = annotated(where, function, "return", namespace(kind, function))
    if annotation in (None, type(None), Never, NoReturn):
        return
    fits = fitting(annotation)

    def checked(result: Any) -> Any:
        _check(fits, result, encode_json(result), f"{where} returns")
        return result

    @wraps(handle)
    async def awaited(message: Any) -> Any:
        return checked(await handle(message))

    @wraps(handle)
    def called(message: Any) -> Any:
        return checked(handle(message))

    handler.handle = awaited if iscoroutinefunction(handle) else called


def _checked_encode(
    encode: Callable[[Any], bytes], fits: Callable[[Any, bytes], object], where: str
) -> Callable[[Any], bytes]:
    def checked(value: Any) -> bytes:
        payload = encode(value)
        _check(fits, value, payload, f"{where} was given")
        return payload

    return checked


def _check(fits: Callable[[Any, bytes], object], value: Any, payload: bytes, what: str) -> None:
    try:
        fits(value, payload)
    except PayloadMismatch as exc:
        raise BadPayload(f"{what} {type(value).__name__}, which is not what it says: {exc.reason}") from exc
