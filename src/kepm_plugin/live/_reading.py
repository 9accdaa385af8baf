"""What the agent's texts mean for one class of settings, key by key and as a whole."""

from collections.abc import Callable, Mapping
from traceback import extract_tb

from kepm_plugin.contract import RESERVED_SETTING_PREFIX
from kepm_plugin.dispatch import Failure, attempted
from kepm_plugin.errors import PluginDefinitionError, SettingsError
from kepm_plugin.settings import Scalar, Settings, leaves_of, read_key, secret_keys, standing_aliases, unknown_keys

Texts = Mapping[str, str]


class Reading:
    """One class, and how the agent's texts are read for it."""

    def __init__(self, kind: type[Settings]) -> None:
        self.kind = kind
        self.keys = tuple(leaf.key for leaf in leaves_of(kind))
        self.secret = secret_keys(kind)

    def parse(self, values: Texts) -> Settings:
        """Return the snapshot that texts mean.

        Raises:
            SettingsError: They break a rule.
        """
        return self.made(lambda: self.kind.parse(values))

    def obeys(self, values: Texts) -> bool:
        """Tell whether texts follow all rules."""
        try:
            self.parse(values)
        except SettingsError:
            return False
        return True

    def made(self, make: Callable[[], Settings]) -> Settings:
        """Return a new snapshot; whatever the author's `validate` raises is a rule that is broken.

        Raises:
            SettingsError: A rule is broken.
        """
        made = attempted(make)
        if not isinstance(made, Failure):
            return made
        if isinstance(made.error, SettingsError):
            raise made.error
        if isinstance(made.error, PluginDefinitionError):
            raise SettingsError(str(made.error), rule="what validate() accepts") from None
        # Without its text, which may hold a secret that nobody knows yet.
        where = extract_tb(made.error.__traceback__)[-1]
        raise SettingsError(
            f"{self.kind.__name__}: checking the values failed with {type(made.error).__name__} "
            f"({where.filename}, line {where.lineno}); validate() must raise ValueError where a rule is broken",
            rule="what validate() accepts",
        ) from None

    def spellings(self, values: Texts, key: str) -> tuple[str, ...]:
        """Return all keys that a value has to be written to: old names that would count again, then the key."""
        return (*standing_aliases(self.kind, values, key), key)

    def now(self, values: Texts, key: str) -> Scalar | None:
        """Return what a key has; a text that breaks its rule as it is, None where it is required and not there."""
        try:
            return read_key(self.kind, values, key)
        except SettingsError:
            text = self.text(values, key)
        try:
            return read_key(self.kind, {key: text}, key)  # It may have been one of several spellings that disagree.
        except SettingsError:
            return text

    def text(self, values: Texts, key: str) -> str:
        """Return the agent's text for a key, in whatever casing it stands there; "" where there is none."""
        spelt = [key] if key in values else [one for one in values if one.casefold() == key.casefold()]
        return values[spelt[0]] if spelt else ""

    def scalars(self, values: Texts) -> dict[str, Scalar]:
        """Return what each key has, without those that are not there."""
        found = {key: self.now(values, key) for key in self.keys}
        return {key: value for key, value in found.items() if value is not None}

    def over(self, values: Texts, wanted: Mapping[str, Scalar]) -> dict[str, str]:
        """Return the texts that the agent will have once some keys were written."""
        return {**values, **{key: str(value) for key, value in wanted.items()}}

    def mark(self, values: Texts) -> object:
        """Return what two looks are compared by: values of others' keys are nobody's concern here, and may change."""
        unknown = unknown_keys(self.kind, values)
        return {key: text for key, text in values.items() if key not in unknown}, unknown

    def agree(self, one: Texts, other: Texts, *, but: Mapping[str, Scalar]) -> bool:
        """Tell whether two looks agree in all keys but some."""
        first, second = self._all(one), self._all(other)
        return all(first.get(key) == second.get(key) for key in first.keys() | second.keys() if key not in but)

    def _all(self, values: Texts) -> dict[str, Scalar]:
        reserved = {key: text for key, text in values.items() if key.casefold().startswith(RESERVED_SETTING_PREFIX)}
        return {**self.scalars(values), **reserved}

    def missing_secrets(self, values: Texts) -> list[str]:
        """Return the required secrets that are not there; nothing where there is more that is wrong."""
        missing: list[str] = []
        for key in self.keys:
            try:
                if read_key(self.kind, values, key) is None:
                    missing.append(key)
            except SettingsError:
                return []
        return missing if self.secret.issuperset(missing) else []
