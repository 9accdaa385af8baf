"""What is checked when the class statement of a plugin ends."""

import re
from inspect import (
    get_annotations,
    isasyncgenfunction,
    iscoroutinefunction,
    isfunction,
    isgeneratorfunction,
    signature,
    unwrap,
)
from typing import Any, Final

from ..contract import BUILT_IN_PLUGINS, EXECUTION_CONTEXTS, PLATFORMS, REVERT_ALL
from ..errors import PluginDefinitionError
from ..spelling import nearest
from ._patterns import texts
from ._publish import Declared
from ._schedule import is_seconds

_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}
_RESERVED_IDS = {name.casefold() for name in (*BUILT_IN_PLUGINS, REVERT_ALL)}

HOOKS: Final = ("lifespan", "on_settings_changed", "on_reconnect")
"""Methods that an author may override."""

_ARGUMENTS: Final = {"on_settings_changed": "change", "on_reconnect": "gap"}

_SIMILAR: Final = 0.87  # share of common letters: "platform" and "platforms" have 0.94


def check_class(cls: type, attributes: set[str], own: set[str]) -> None:
    """Check what holds for abstract classes, too. `attributes` may be set, `own` is for the framework alone.

    Raises:
        PluginDefinitionError: With class, attribute and remedy.
    """
    where = cls.__qualname__
    for name, value in vars(cls).items():
        if name in own:
            raise PluginDefinitionError(f"{where}.{name} hides what the framework has there; {_instead(name, value)}")
        known = HOOKS if isfunction(value) else () if isinstance(value, Declared) else tuple(attributes)
        if not name.startswith("_") and name not in known:
            check_spelling(where, name, known)
    if "host" in get_annotations(cls):
        raise PluginDefinitionError(f"{where}.host hides what the framework has there; choose another name")
    if "lifespan" in vars(cls) and not _is_lifespan(vars(cls)["lifespan"]):
        raise PluginDefinitionError(
            f"{where}.lifespan is no async context manager; write '@asynccontextmanager' above 'async def "
            "lifespan(self)', and one 'yield' in it"
        )
    for name, argument in _ARGUMENTS.items():
        hook = vars(cls).get(name)
        if name in vars(cls) and not (iscoroutinefunction(hook) and _takes(hook, 2)):
            raise PluginDefinitionError(f"{where}.{name} must be 'async def {name}(self, {argument})'")


def _is_lifespan(value: Any) -> bool:
    """Tell whether it may be one; a method without a decorator may still return one, and says so."""
    if not isfunction(value) or not _takes(value, 1):
        return False
    written = unwrap(value)
    if written is not value:
        return isasyncgenfunction(written) or not (isgeneratorfunction(written) or iscoroutinefunction(written))
    says = str(get_annotations(value).get("return"))
    return "AsyncContextManager" in says and not (isasyncgenfunction(value) or iscoroutinefunction(value))


def _takes(function: Any, count: int) -> bool:
    try:
        signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True


def check_spelling(where: str, name: str, known: tuple[str, ...]) -> None:
    """Refuse a name that is one of `known` but for a slip, since nobody would read it.

    Raises:
        PluginDefinitionError: With the name that is close.
    """
    near = "" if name in known else nearest(name, (one for one in known if len(one) > 4), cutoff=_SIMILAR)
    if near:
        raise PluginDefinitionError(
            f"{where}.{name} is read by nobody, but looks like {near!r}; write that if it is meant, else choose "
            "another name"
        )


def check_values(cls: Any) -> None:
    """Check the attributes of a class that can run.

    Raises:
        PluginDefinitionError: With class, attribute and remedy.
    """
    where = cls.__qualname__
    _check_id(where, cls.id)
    seconds = "seconds above 0"
    platforms = texts(f"{where}.platforms", cls.platforms)
    checks: list[tuple[str, bool, str]] = [
        (
            "version",
            isinstance(cls.version, str) and bool(_VERSION.fullmatch(cls.version)),
            "a semantic version such as '1.0.0'",
        ),
        ("name", isinstance(cls.name, str), "a text"),
        ("execution_context", cls.execution_context in EXECUTION_CONTEXTS, f"one of {', '.join(EXECUTION_CONTEXTS)}"),
        ("startup_priority", _is_int(cls.startup_priority) and cls.startup_priority >= 0, "a whole number from 0"),
        ("qos", _is_int(cls.qos) and 0 <= cls.qos <= 2, "0, 1 or 2"),
        ("outbox", cls.outbox in ("memory", "disk"), "'memory' or 'disk'"),
        ("heartbeat", cls.heartbeat is None or is_seconds(cls.heartbeat), f"{seconds}, or None for no heartbeat"),
        ("link_budget", is_seconds(cls.link_budget), seconds),
        ("drain", is_seconds(cls.drain), seconds),
        ("settings_interval", is_seconds(cls.settings_interval), seconds),
        (
            "platforms",
            bool(platforms) and set(platforms) <= set(PLATFORMS),
            f"a tuple of {', '.join(repr(one) for one in PLATFORMS)}",
        ),
    ]
    flags = ("auto_start", "requires_monitoring", "auto_restart", "journal", "clean_session", "echo")
    checks += [(flag, isinstance(getattr(cls, flag), bool), "True or False") for flag in flags]
    for attribute, good, wanted in checks:
        if not good:
            raise PluginDefinitionError(f"{where}.{attribute} is {getattr(cls, attribute)!r}; give {wanted}")
    if cls.outbox == "disk" and not cls.journal:
        raise PluginDefinitionError(
            f"{where}.outbox is 'disk', and journal = False is for plugins that may not write; leave one of them out"
        )
    if not _has_own_construction(cls):
        return
    try:
        signature(cls).bind()
    except TypeError as exc:
        raise PluginDefinitionError(
            f"{where}.__init__ needs arguments ({exc}), and a plugin is made without any; open in 'lifespan' what it "
            "needs, and read 'self.settings' there"
        ) from exc


def _has_own_construction(cls: Any) -> bool:
    """Tell whether arguments are anybody's concern: how `object` is made stands in its docstring, parsed for 3 ms."""
    return cls.__init__ is not object.__init__ or cls.__new__ is not object.__new__ or type(cls) is not type


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _instead(name: str, value: object) -> str:
    if name == "settings":
        kind = value.__name__ if isinstance(value, type) else type(value).__name__
        return f"settings come from the agent: annotate their class, 'settings: {kind}'"
    if name == "description":
        return "the description is the docstring of the class"
    return "choose another name"


def _check_id(where: str, plugin_id: object) -> None:
    if not plugin_id:
        name = where.rpartition(".")[2]
        raise PluginDefinitionError(
            f"{where}.id is missing: set id = {_legal(name)!r}, or declare 'class {name}(Plugin, abstract=True)' if it "
            "only shares code"
        )
    if not isinstance(plugin_id, str) or not _ID.fullmatch(plugin_id):
        # The id is a file name, a part of a URL, a topic level and part of a client id, which the broker splits on `_`.
        raise PluginDefinitionError(
            f"{where}.id is {plugin_id!r}; use 1 to 64 letters, digits, '-' and '.', without '_', '/', '+', '#' or "
            f"spaces, as in {_legal(str(plugin_id))!r}"
        )
    if plugin_id.casefold() in _RESERVED_IDS:
        raise PluginDefinitionError(f"{where}.id is {plugin_id!r}, which the agent uses itself; choose another id")
    if _is_device(plugin_id):
        raise PluginDefinitionError(
            f"{where}.id is {plugin_id!r}, which Windows reserves as a file name; choose another id"
        )


def _is_device(plugin_id: str) -> bool:
    return plugin_id.casefold().partition(".")[0] in _WINDOWS_DEVICES


def _legal(text: str) -> str:
    better = re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.")[:64].strip("-.")
    return better if better and better.casefold() not in _RESERVED_IDS and not _is_device(better) else "MyPlugin"
