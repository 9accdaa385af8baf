"""The whole of a plugin's declarations, checked together: what the manifest, the runtime and the tests all read."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from inspect import get_annotations
from itertools import combinations
from typing import TYPE_CHECKING, Any, get_type_hints

from ..contract import LOGGER_TOPIC, RESPONSES_LEVEL, link_topic, status_topic
from ..errors import PluginDefinitionError, TopicClash
from ..settings import Settings
from ..topics import Pattern, overlap, widest
from ._handler import HandlerSpec
from ._publish import Publisher, Request
from ._schedule import Background, Every, scheduled

if TYPE_CHECKING:
    from ._plugin import Plugin


@dataclass(frozen=True, slots=True)
class HandlerRoute:
    """A handler with its topics resolved against the plugin's id."""

    spec: HandlerSpec
    filter: str
    response: Pattern | None
    """Where a command's result goes; None for a plain topic."""
    payload_type: Any


@dataclass(frozen=True, slots=True)
class RequestRoute:
    """A request with its topics resolved."""

    owner: str
    """Class and attribute, for messages to people."""
    topic: str
    """Filter of the topics that questions are published to."""
    filter: str
    """Filter of the topics that answers come from."""


Route = HandlerRoute | RequestRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class Declarations:
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
    handlers = tuple(_resolve(plugin, spec) for spec in plugin.handler_specs())
    requests = tuple(
        RequestRoute(request.owner, request.topic.filter(plugin.id), request.response.filter(plugin.id))
        for request in _attributes(plugin, Request)
    )
    _check_clashes([*((one.filter, one.spec.name) for one in handlers), *((one.filter, one.owner) for one in requests)])
    subscribed = [one.filter for one in handlers] + [one.filter for one in requests]
    _check_overlaps(subscribed, handlers, requests)
    echo = [link_topic(plugin.id)] if plugin.echo else []
    _check_own_topics(plugin, subscribed, echo)
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
        modules: Iterable[str] = vars(base).get("modules", ())
        if isinstance(modules, str):
            raise PluginDefinitionError(f"{base.__name__}.modules is a string; write modules = ({modules!r},)")
        for name in modules:
            home = sys.modules.get(base.__module__)
            package = getattr(home, "__package__", None) or ""
            # In a folder without `__init__.py` there is no package; its files are siblings all the same.
            wanted = name if package or not name.startswith(".") else name.lstrip(".")
            try:
                import_module(wanted, package or None)
            except ModuleNotFoundError as exc:
                if exc.name is None or not f"{package}.{wanted.lstrip('.')}".endswith(exc.name):
                    raise
                raise PluginDefinitionError(
                    f"{base.__name__}.modules: no module {name!r} beside {base.__module__}; correct it or create it"
                ) from exc


def settings_type(plugin: "type[Plugin]") -> type[Settings]:
    """Return the class in the plugin's annotation `settings: …`, `Settings` where there is none.

    Raises:
        PluginDefinitionError: The annotation is no subclass of `Settings`.
    """
    for base in plugin.__mro__:
        if "settings" not in get_annotations(base) or base.__module__.startswith(__package__ or ""):
            continue
        module = sys.modules.get(base.__module__)
        try:
            found = get_type_hints(base, globalns=getattr(module, "__dict__", None)).get("settings")
        except NameError as exc:
            raise PluginDefinitionError(
                f"{base.__name__}: an annotation names {exc.name!r}, which its module lacks at run time; define it at "
                "the top level, and import it outside 'if TYPE_CHECKING'"
            ) from exc
        if not (isinstance(found, type) and issubclass(found, Settings)):
            raise PluginDefinitionError(
                f"{base.__name__}.settings is annotated as {found!r}; make that a subclass of Settings"
            )
        return found
    return Settings


def _resolve(plugin: "type[Plugin]", spec: HandlerSpec) -> HandlerRoute:
    try:
        spec.pattern.check_owner(plugin.id)
    except PluginDefinitionError as exc:
        raise PluginDefinitionError(f"{spec.name}: {exc}") from exc
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
    return [one for one in own if one != LOGGER_TOPIC]


def _allowed(plugin: "type[Plugin]", attribute: str) -> list[str]:
    texts: object = getattr(plugin, attribute)
    if isinstance(texts, str):
        raise PluginDefinitionError(f"{plugin.__name__}.{attribute} is a string; write {attribute} = ({texts!r},)")
    found: list[str] = []
    for text in getattr(plugin, attribute):
        try:
            pattern = Pattern.parse(text)
            pattern.check_owner(plugin.id)
        except PluginDefinitionError as exc:
            raise PluginDefinitionError(f"{plugin.__name__}.{attribute}: {exc}") from exc
        found.append(pattern.filter(plugin.id))
    return found


def _check_clashes(named: list[tuple[str, str]]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    for topic_filter, name in named:
        other, before = seen.setdefault(topic_filter.casefold(), (topic_filter, name))
        if before is not name:
            spelt = "" if other == topic_filter else f" (compared without case with {other!r})"
            raise TopicClash(
                f"{name} and {before} both take {topic_filter!r}{spelt}: one message has one handler; "
                "remove one of them, or give it another topic"
            )


def _check_overlaps(filters: list[str], handlers: Iterable[HandlerRoute], requests: Iterable[RequestRoute]) -> None:
    # An MQTT 5 broker may deliver a message once per subscription that it falls under (section 3.3.4), and on 3.1.1
    # nothing tells the copies apart. Where one filter covers the other only the wide one is subscribed.
    names = {one.filter: one.spec.name for one in handlers} | {one.filter: one.owner for one in requests}
    for one, other in combinations(widest(filters), 2):
        if overlap(one, other):
            raise TopicClash(
                f"{names[one]} ({one!r}) and {names[other]} ({other!r}) overlap without one covering the other, and "
                "brokers may deliver such a message twice; add a handler whose topic covers both (the most specific "
                "one still wins), or make a level literal"
            )


def _check_own_topics(plugin: "type[Plugin]", subscribed: list[str], echo: list[str]) -> None:
    for own in echo:
        for topic_filter in subscribed:
            if topic_filter.casefold() == own.casefold():
                raise TopicClash(
                    f"{plugin.__name__}: {own!r} is the framework's own echo; give the handler another topic, or "
                    "turn it off with echo = False"
                )
            if overlap(own, topic_filter) and widest([own, topic_filter]) == sorted([own, topic_filter]):
                raise TopicClash(f"{plugin.__name__}: {topic_filter!r} overlaps the framework's own {own!r}; narrow it")


def _schedule(plugin: "type[Plugin]") -> tuple[Every | Background, ...]:
    found = tuple(scheduled(plugin))
    known = {field for base in settings_type(plugin).__mro__ for field in get_annotations(base)}
    for one in found:
        if isinstance(one, Every) and one.setting is not None and one.setting not in known:
            raise PluginDefinitionError(
                f"{plugin.__name__}.{one.name}: every(setting={one.setting!r}) names no attribute of "
                f"{settings_type(plugin).__name__}; declare it there"
            )
    return found
