"""The JSON Schema of a contract file, made of the class itself: its fields, their rules, their docstrings."""

from collections.abc import Iterator
from typing import Any, cast

from kepm_plugin.contract import ASSUMED, ITEMS, Contract


def contract_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a contract file, as editors of TOML use it.

    It reads the source of `Contract`, which a frozen program does not have.
    """
    told = dict(_told())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Contract file of kepm-plugin",
        "description": "What a real agent does otherwise than the framework assumes. Every item may be left out.",
        "type": "object",
        "properties": {
            name: {"description": told[name], **rule.schema, "default": _plain(getattr(ASSUMED, name))}
            for name, rule in ITEMS.items()
        },
        "additionalProperties": False,
    }


def _told() -> Iterator[tuple[str, str]]:
    """Yield each item with its docstring; one docstring may follow several items."""
    import ast
    import inspect

    (kind,) = ast.parse(inspect.getsource(Contract)).body
    names: list[str] = []
    for node in kind.body if isinstance(kind, ast.ClassDef) else ():
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.append(name)
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield from ((name, " ".join(text.removeprefix("*Assumed.*").split())) for name in names)
                names.clear()
            case _:
                continue


def _plain(value: object) -> object:
    return list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else value
