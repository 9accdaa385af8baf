"""`Settings`: the base of an author's settings, and how a snapshot comes to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Generic, Self, TypeVar, dataclass_transform

from msgspec import Struct

from kepm_plugin.errors import PluginDefinitionError, SettingsError
from kepm_plugin.fields import MASK, MISSING, SettingField, masked

from ._declaration import Declared, declared, nested_in
from ._lookup import found
from ._setting import setting

S = TypeVar("S", bound="Settings")


class _Problem(Struct, frozen=True):
    key: str
    rule: str
    text: str


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Base of an author's settings: a frozen snapshot of typed values.

    A field is an annotated attribute; what is constant is a `ClassVar`. Its type is one of these, or one `| None`, for
    which the empty string is None:

    - `str`, `Secret`, `bool`, `int`, `float`, `Decimal`, `Literal`, an `Enum` of strings or whole numbers;
    - `timedelta` (`5s`, `1h30m`, `PT5M`, `00:05:00`), `Size` (`64MiB`), `datetime`, `date`, `time`, `Path`, `UUID`,
      `bytes` (base64);
    - `list`, `tuple`, `set`, `frozenset`, `dict`, `msgspec.Struct`, dataclass or `TypedDict` of them: JSON text at the
      agent, or keys below the setting's own (`hosts.0`, `hosts:0`, `proxy.port`) where that key is not there;
    - another class of `Settings`, whose settings have dotted keys below this one's, each with rules of its own.
      `class Scan(Settings, nested=True)` is only ever used so; its keys may then be those that the root of a plugin's
      file has another use for, such as `name`.

    Values are checked however the snapshot came to be, parsed, constructed or copied with `dataclasses.replace`, so
    none breaks its rules.

    Raises:
        PluginDefinitionError: At the class statement, for a field that cannot be.
        SettingsError: At construction, naming every value that breaks its rule.
    """

    __kepm_declared__: ClassVar[Declared] = Declared()

    def __init_subclass__(cls, *, reserved: bool = False, nested: bool = False, **rest: Any) -> None:
        """Read the class body. `reserved=True` is the framework's own: its keys, and only they, begin with `kepm.`."""
        super().__init_subclass__(**rest)
        cls.__kepm_declared__ = declared(cls, Settings, reserved=reserved, nested=nested)

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> Self:
        """Return the snapshot that the agent's strings mean.

        A key is looked up as written, then in any casing and with colons for dots. Unknown keys are ignored (HTTP
        Reference).

        Raises:
            SettingsError: Names every key that is missing or breaks its rule, and shows the value unless it is secret.
        """
        values_found: dict[str, Any] = {}
        problems: list[_Problem] = []
        for leaf in leaves_of(cls):
            try:
                value = found(leaf, values).value
            except SettingsError as error:
                problems.append(_Problem(error.key, error.rule, str(error)))
                continue
            if value is MISSING:
                problems.append(_Problem(leaf.key, leaf.rule, f"{leaf.key!r} is not set; it must be {leaf.rule}"))
            values_found[leaf.name] = value
        _raise_for(cls, problems)
        return _built(cls, values_found)

    def validate(self) -> None:
        """Check rules over several fields; override it and raise ValueError or SettingsError.

        It runs at the end of every construction, after each value has passed its own rule; that of a nested class runs
        before that of the class around it.
        """

    def __post_init__(self) -> None:
        problems: list[_Problem] = []
        for item in fields_of(type(self)):
            value = getattr(self, item.name)
            try:
                object.__setattr__(self, item.name, item.checked(value))
            except SettingsError as error:
                problems.append(_within(item, error))
            except ValueError as error:
                problems.append(_Problem(item.key, item.rule, item.complaint(value, error)))
        _raise_for(type(self), problems)
        try:
            returned: object = self.validate()  # type: ignore[func-returns-value]  # an author's may all the same
        except (ValueError, SettingsError) as error:
            # Neither the message nor a chained exception may carry a secret out.
            secrets = secrets_of(self)
            text = masked(str(error), secrets)
            key, rule = (error.key, masked(error.rule, secrets)) if isinstance(error, SettingsError) else ("", text)
            raise SettingsError(f"{type(self).__name__}: {text}", key=key, rule=rule) from None
        if returned is not None:
            raise PluginDefinitionError(
                f"{type(self).__qualname__}.validate returns something, which nobody looks at; raise ValueError where "
                "a rule is broken, and return nothing"
            )

    def __repr__(self) -> str:
        shown = (f"{f.name}={MASK if f.secret else repr(getattr(self, f.name))}" for f in fields_of(type(self)))
        return f"{type(self).__name__}({', '.join(shown)})"


class Change(Struct, Generic[S], frozen=True):
    """Two snapshots, and the names of the attributes in which they differ; a nested class counts as one."""

    old: S
    new: S
    names: frozenset[str]


def fields_of(settings: type[Settings]) -> tuple[SettingField, ...]:
    """Return the fields of a settings class in the order of declaration, those of its bases first.

    A nested class is one field among them, which has no text; `nested_in` returns the class.
    """
    return settings.__kepm_declared__.fields


def leaves_of(settings: type[Settings]) -> tuple[SettingField, ...]:
    """Return what the agent has keys for, in the order of declaration: the fields, and those of nested classes.

    `name` is dotted, as is `key`; `default` is what the class around it makes of it.
    """
    return settings.__kepm_declared__.leaves


def is_nested(settings: type[Settings]) -> bool:
    """Tell whether a class is declared to stand in others only."""
    return settings.__kepm_declared__.nested


def secrets_of(settings: Settings) -> frozenset[str]:
    """Return every text that must not be seen: the secret values, and the strings inside secret collections."""
    secret = (f.texts(attrgetter(f.name)(settings)) for f in leaves_of(type(settings)) if f.secret)
    return frozenset[str]().union(*secret)


def _built(settings: type[S], values: Mapping[str, Any], prefix: str = "") -> S:
    """Return a snapshot of values by the names of their leaves, from the innermost class outwards."""
    given: dict[str, Any] = {}
    problems: list[_Problem] = []
    for item in fields_of(settings):
        inner = nested_in(item)
        try:
            given[item.name] = (
                values[prefix + item.name] if inner is None else _built(inner, values, f"{prefix}{item.name}.")
            )
        except SettingsError as error:
            problems.append(_within(item, error))
    _raise_for(settings, problems)
    return settings(**given)


def _within(item: SettingField, error: SettingsError) -> _Problem:
    """Return what is wrong in a nested class, for the one around it."""
    return _Problem(f"{item.key}.{error.key}" if error.key else item.key, error.rule, f"{item.key!r}: {error}")


def _raise_for(settings: type[Settings], problems: list[_Problem]) -> None:
    if not problems:
        return
    text = "; ".join(problem.text for problem in problems)
    one = problems[0] if len(problems) == 1 else None
    raise SettingsError(
        f"{settings.__name__}: {text}", key=one.key if one else "", rule=one.rule if one else text
    ) from None
