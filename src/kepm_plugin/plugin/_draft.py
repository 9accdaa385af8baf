"""`Draft`: the settings that an author edits."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

from ..errors import SettingsError
from ..settings import Settings, fields_of


class Draft:
    """Attributes of a settings object, open for assignment: copies, so that the snapshot stays as it is.

    A nested class of settings is a draft, too, so that `draft.scan.depth = 4` works; a whole snapshot of it can be
    assigned as well.
    """

    __slots__ = ("__dict__", "_before")  # the second is none of `vars()`, where the settings are
    _before: Settings

    def __init__(self, settings: Settings) -> None:
        object.__setattr__(self, "_before", settings)
        for field in fields_of(type(settings)):
            value = getattr(settings, field.name)
            vars(self)[field.name] = Draft(value) if isinstance(value, Settings) else deepcopy(value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in vars(self):
            raise SettingsError(f"there is no setting {name!r}; there are {', '.join(vars(self))}", key=name)
        # A snapshot of another class is left for the rule of the field to refuse.
        fits = isinstance(value, Settings) and type(value) is type(getattr(self._before, name))
        vars(self)[name] = Draft(value) if fits else value

    def __repr__(self) -> str:
        return f"<draft of {self._before!r}>"

    @staticmethod
    def changes(draft: "Draft") -> dict[str, Any]:
        """Return what was assigned and differs, by attribute; of a nested class the whole new snapshot.

        It is asked of the class, `Draft.changes(draft)`, because a setting may have that name.

        Raises:
            SettingsError: A value in a nested class breaks a rule of that class.
        """
        before = draft._before
        after = {name: Draft._closed(value) for name, value in vars(draft).items()}
        return {name: value for name, value in after.items() if value != getattr(before, name)}

    @staticmethod
    def _closed(value: Any) -> Any:
        if not isinstance(value, Draft):
            return value
        changed = Draft.changes(value)
        return replace(value._before, **changed) if changed else value._before
