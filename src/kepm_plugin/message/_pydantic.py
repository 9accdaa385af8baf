"""pydantic, which is the author's to import: recognised by what it marks, and reached through its loaded module."""

import inspect
import sys
from collections.abc import Callable
from typing import Any, get_args


def is_pydantic(annotation: Any) -> bool:
    """Tell whether this is a pydantic model or dataclass."""
    return inspect.isclass(annotation) and hasattr(annotation, "__pydantic_validator__")


def has_pydantic(annotation: Any) -> bool:
    """Tell whether this is one, or a list, dict, union and the like of one."""
    return is_pydantic(annotation) or any(has_pydantic(one) for one in get_args(annotation))


def validator(annotation: Any) -> Callable[[bytes], Any]:
    """Return a function from JSON to the annotation; it raises ValueError for what does not fit.

    Raises:
        TypeError: pydantic knows no way to the annotation.
    """
    try:
        validate: Callable[[bytes], Any] = _pydantic().TypeAdapter(annotation).validate_json
    except (TypeError, NameError, RuntimeError) as exc:
        raise TypeError(str(exc).partition("\n")[0]) from exc
    return validate


def complaint(error: Any) -> str:
    """Return what a validator's ValidationError says, without the payload that its own text quotes."""
    found: list[dict[str, Any]] = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{one['msg']} - at `{'.'.join(['$', *map(str, one['loc'])])}`" for one in found[:3])


def properties(annotation: Any) -> set[str]:
    """Return the names that a model has in JSON; nothing for a list, dict or union."""
    models: dict[str, Any] = getattr(annotation, "model_fields", {})
    return {str(field.alias or name) for name, field in models.items()}


def plain(value: Any) -> Any:
    """Return a model as JSON's own types."""
    return value.model_dump(mode="json")


def _pydantic() -> Any:
    return sys.modules["pydantic"]
