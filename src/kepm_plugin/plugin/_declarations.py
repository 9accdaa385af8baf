"""The whole of a plugin's declarations, checked together: what the manifest, the runtime and the tests all read."""

import sys
from collections.abc import Iterable
from datetime import timedelta
from importlib import import_module
from importlib.util import resolve_name
from inspect import get_annotations
from itertools import product
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..contract import LOGGER_TOPIC, RESPONSES_LEVEL, link_topic, settings_topic, status_topic
from ..errors import PluginDefinitionError, TopicClash
from ..settings import MISSING, Settings, fields_of, is_nested
from ..topics import Pattern, has_wildcard, overlap, widest
from ._annotations import annotated, namespace
from ._handler import HandlerSpec
from ._leftovers import check_leftovers
from ._patterns import check_owner, declared, texts
from ._publish import Declared, Publisher, Request
from ._schedule import Background, Every, in_seconds, is_seconds, scheduled

if TYPE_CHECKING:
    from ._plugin import Plugin


class HandlerRoute(Struct, frozen=True):
    """A handler with its topics resolved against the plugin's id."""

    spec: HandlerSpec
    filter: str
    response: Pattern | None
    """Where a command's result goes; None for a plain topic."""
    payload_type: Any


class RequestRoute(Struct, frozen=True):
    """A request with its topics resolved."""

    owner: str
    """Class and attribute, for messages to people."""
    topic: str
    """Filter of the topics that questions are published to."""
    filter: str
    """Filter of the topics that answers come from."""


Route = HandlerRoute | RequestRoute


class Declarations(Struct, frozen=True, kw_only=True):
    """What a plugin handles, sends and runs. All topics and filters are complete, from their first level on."""

    plugin: "type[Plugin]"
    handlers: tuple[HandlerRoute, ...]
    requests: tuple[RequestRoute, ...]
    publish: tuple[str, ...]
    """Filters that may be published to: the manifest's list."""
    subscribe: tuple[str, ...]
    """Filters that may be subscribed: the manifest's list."""
    filters: tuple[str, ...]
    """Filters that are subscribed at each connect: those of the handlers, the requests and the echo."""
    schedule: tuple[Every | Background, ...]
    settings_type: type[Settings]

    @property
    def routes(self) -> list[tuple[str, Route]]:
        """Every route with its filter."""
        handlers: list[tuple[str, Route]] = [(route.filter, route) for route in self.handlers]
        return handlers + [(route.filter, route) for route in self.requests]


def declare(plugin: "type[Plugin]") -> Declarations:
    """Import the plugin's modules, then check and return all its declarations.

    Raises:
        PluginDefinitionError: What is wrong, with class, attribute and remedy.
    """
    if plugin.is_abstract():
        raise PluginDefinitionError(f"{plugin.__name__} is abstract; run a class that inherits from it and has an id")
    import_modules(plugin)
    check_leftovers(plugin, has_settings=settings_type(plugin) is not Settings)
    for attribute in _attributes(plugin, Declared):
        attribute.check(plugin)
    handlers = tuple(_resolve(plugin, spec) for spec in plugin.handler_specs())
    requests = tuple(
        RequestRoute(request.owner, request.topic.filter(plugin.id), request.response.filter(plugin.id))
        for request in _attributes(plugin, Request)
    )
    _check_clashes(handlers, requests)
    subscribed = [one.filter for one in handlers] + [one.filter for one in requests]
    _check_overlaps(handlers, requests)
    _check_own_topics(plugin, handlers, requests)
    echo = [link_topic(plugin.id)] if plugin.echo else []
    return Declarations(
        plugin=plugin,
        handlers=handlers,
        requests=requests,
        publish=(LOGGER_TOPIC, *widest(_published(plugin, handlers, requests) + echo)),
        subscribe=tuple(widest(subscribed + echo + _allowed(plugin, "allow_subscribe"))),
        filters=tuple(widest(subscribed + echo)),
        schedule=_schedule(plugin),
        settings_type=settings_type(plugin),
    )


def import_modules(plugin: "type[Plugin]") -> None:
    """Import what `modules` names, relative to the module in which each class stands.

    Raises:
        PluginDefinitionError: A module does not exist.
    """
    for base in reversed(plugin.__mro__):
        where = f"{base.__name__}.modules"
        for name in texts(where, vars(base).get("modules", ())):
            home = sys.modules.get(base.__module__)
            package = getattr(home, "__package__", None) or ""
            # In a folder without `__init__.py` there is no package; its files are siblings all the same.
            wanted = name if package or not name.startswith(".") else name.lstrip(".")
            try:
                complete = resolve_name(wanted, package)
            except (ImportError, ValueError) as exc:
                raise PluginDefinitionError(f"{where}: {name!r} names no module of {package}; correct it") from exc
            try:
                import_module(complete)
            except ModuleNotFoundError as exc:
                if not f"{complete}.".startswith(f"{exc.name}."):
                    raise
                near = "" if name.startswith(".") else f", as in '.{name}' for one beside it,"
                raise PluginDefinitionError(
                    f"{where}: there is no module {name!r}, seen from {base.__module__}; correct it{near} or create it"
                ) from exc


def settings_type(plugin: "type[Plugin]") -> type[Settings]:
    """Return the class in the plugin's annotation `settings: …`, `Settings` where there is none.

    Raises:
        PluginDefinitionError: The annotation is no subclass of `Settings`.
    """
    for base in plugin.__mro__:
        if "settings" not in get_annotations(base) or base.__module__.startswith(__package__ or ""):
            continue
        where = f"{base.__name__}.settings"
        found = annotated(where, base, "settings", namespace(base))
        if not (isinstance(found, type) and issubclass(found, Settings)):
            raise PluginDefinitionError(f"{where} is annotated as {found!r}; make that a subclass of Settings")
        if is_nested(found):
            remedy = "leave `nested=True` out, or annotate a class of Settings that has it as an attribute"
            raise PluginDefinitionError(f"{where} is {found.__name__}, which only stands in others; {remedy}")
        return found
    return Settings


def _resolve(plugin: "type[Plugin]", spec: HandlerSpec) -> HandlerRoute:
    check_owner(spec.name, spec.pattern, plugin)
    response = None if spec.command is None else Pattern.parse(f"{RESPONSES_LEVEL}/{spec.command}")
    return HandlerRoute(spec, spec.pattern.filter(plugin.id), response, spec.payload_type())


def _attributes(plugin: "type[Plugin]", kind: type[Any]) -> list[Any]:
    found: dict[str, Any] = {}
    for base in reversed(plugin.__mro__):
        for name, value in vars(base).items():
            found.pop(name, None)
            if isinstance(value, kind):
                found[name] = value
    return list(found.values())


def _published(plugin: "type[Plugin]", handlers: Iterable[HandlerRoute], requests: Iterable[RequestRoute]) -> list[str]:
    own = [publisher.pattern.filter(plugin.id) for publisher in _attributes(plugin, Publisher)]
    own += [route.response.filter(plugin.id) for route in handlers if route.response is not None]
    own += [route.topic for route in requests]
    own += _allowed(plugin, "allow_publish")
    if plugin.heartbeat is not None:
        own.append(status_topic(plugin.id))
        if fields_of(settings_type(plugin)):
            own.append(settings_topic(plugin.id))
    return [one for one in own if one != LOGGER_TOPIC]


def _allowed(plugin: "type[Plugin]", attribute: str) -> list[str]:
    where = f"{plugin.__name__}.{attribute}"
    return [declared(where, text, plugin).filter(plugin.id) for text in texts(where, getattr(plugin, attribute))]


def _check_clashes(handlers: Iterable[HandlerRoute], requests: Iterable[RequestRoute]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for one in handlers:
        key, mine = one.filter.casefold(), (one.filter, one.spec.name)
        if key in seen:
            raise _clash(mine, seen[key])
        seen[key] = mine
    # Requests may share a response topic: the correlation id tells their answers apart.
    for request in requests:
        if (key := request.filter.casefold()) in seen:
            raise _clash((request.filter, request.owner), seen[key])


def _clash(mine: tuple[str, str], before: tuple[str, str]) -> TopicClash:
    spelt = "" if mine[0] == before[0] else f" (compared without case with {before[0]!r})"
    return TopicClash(
        f"{mine[1]} and {before[1]} both take {mine[0]!r}{spelt}: one message has one handler; remove one of them, or "
        "give it another topic"
    )


def _check_overlaps(handlers: Iterable[HandlerRoute], requests: Iterable[RequestRoute]) -> None:
    # An MQTT 5 broker may deliver a message once per subscription that it falls under (section 3.3.4), and on 3.1.1
    # nothing tells the copies apart. Where one filter covers the other only the wide one is subscribed.
    names = {one.filter: one.spec.name for one in handlers} | {one.filter: one.owner for one in requests}
    found = widest(names)
    # Two without wildcards share no topic.
    for wide, narrow in product(filter(has_wildcard, found), found):
        if wide != narrow and overlap(wide, narrow):
            one, other = sorted((wide, narrow))
            raise TopicClash(
                f"{names[one]} ({one!r}) and {names[other]} ({other!r}) overlap without one covering the other, and "
                "brokers may deliver such a message twice; add a handler whose topic covers both (the most specific "
                "one still wins), or make a level literal"
            )


def _check_own_topics(
    plugin: "type[Plugin]", handlers: Iterable[HandlerRoute], requests: Iterable[RequestRoute]
) -> None:
    """Refuse what would mix with the framework's own messages. A handler with parameters does not get the echo."""
    taken = [(one.filter, one.spec.name) for one in handlers] + [(one.filter, one.owner) for one in requests]
    sent = [(one.pattern.filter(plugin.id), one.owner) for one in _attributes(plugin, Publisher)]
    link, status = link_topic(plugin.id).casefold(), status_topic(plugin.id).casefold()
    settings = settings_topic(plugin.id).casefold()
    for topic_filter, name in taken + sent:
        if plugin.echo and topic_filter.casefold() == link:
            raise TopicClash(
                f"{name}: {topic_filter!r} is the framework's own, for the echo that proves the link; take another "
                "topic, or turn the echo off with echo = False"
            )
    reported = {status: "state"} | ({settings: "settings"} if fields_of(settings_type(plugin)) else {})
    for topic_filter, name in sent:
        if plugin.heartbeat is not None and (what := reported.get(topic_filter.casefold())):
            raise TopicClash(
                f"{name}: {topic_filter!r} is where the framework reports the plugin's {what}; take another topic, or "
                "turn that off with heartbeat = None"
            )


def _schedule(plugin: "type[Plugin]") -> tuple[Every | Background, ...]:
    found, settings = tuple(scheduled(plugin)), settings_type(plugin)
    periods = (int, float, timedelta)
    numbers = {field.name: field.default for field in fields_of(settings) if field.kind.base in periods}
    for one in found:
        if isinstance(one, Every) and one.setting is not None and one.setting not in numbers:
            raise PluginDefinitionError(
                f"{plugin.__name__}.{one.name}: every(setting={one.setting!r}) names no number or duration in "
                f"{settings.__name__}; declare it there, as in '{one.setting}: float = setting(default=60.0, gt=0)'"
            )
        if isinstance(one, Every) and one.setting is not None:
            default = numbers[one.setting]
            if default is not MISSING and default is not None and not is_seconds(in_seconds(default)):
                raise PluginDefinitionError(
                    f"{plugin.__name__}.{one.name}: {settings.__name__}.{one.setting} has the default {default!r}, "
                    "which is no period; give seconds above 0"
                )
    return found
