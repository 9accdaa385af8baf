"""What the agent answered: statuses as errors, bodies read liberally."""

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from typing import Final

import httpx

from ..errors import AgentRefused, BadAgentAnswer, UnknownPlugin

_UNFIT: Final = (400, 415, 422)
"""Statuses that say that a body is not what was expected (RFC 9110, section 15.5)."""

_WHO_MAY_WRITE: Final = (
    "; or, where reading works, it lets only administrators write settings: then set the contract's put_tier to "
    '"admin", so that the plugin does not try (docs/contract.md)'
)

_SHOWN: Final = 200  # characters of a header's value


class Answer:
    """A response, read to its end."""

    def __init__(self, code: int, headers: httpx.Headers, body: bytes, method: str) -> None:
        self.code, self.location, self._body, self._method = code, headers.get("location", ""), body, method
        self.content_type = headers.get("content-type", "").partition(";")[0].strip().lower()

    def text(self, url: str) -> str:
        try:
            return self._body.removeprefix(BOM_UTF8).decode()
        except UnicodeDecodeError:
            raise BadAgentAnswer(f"{self._method} {url}: the answer is not UTF-8") from None

    def json(self, url: str) -> object:
        try:
            return json.loads(self.text(url), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            kind = self.content_type or "no type"
            raise BadAgentAnswer(
                f"{self._method} {url}: the answer is not JSON ({len(self._body)} bytes of {kind})"
            ) from None


def check_status(answer: Answer, what: str, plugin: str, key: str, body: Mapping[str, object] | None) -> None:
    """Raise what a status means, with the remedy; `body` is what a PUT has sent, whose value is not told."""
    code = answer.code
    if 200 <= code < 300:
        return
    if code == 403:
        raise AgentRefused(
            f"{what} was refused (403): the agent did not launch this process, or has not registered it yet; "
            "start the plugin through the agent, or try again in a moment" + ("" if body is None else _WHO_MAY_WRITE)
        )
    if code == 404 and plugin:
        of_setting = f", or that plugin has no setting {key!r}" if key else ""
        raise UnknownPlugin(
            f"{what} was not found (404): the agent knows no plugin {plugin!r}{of_setting}; ids are matched exactly, "
            f"so compare them with the agent's Plugins/{plugin}.json and restart the agent if that file is new"
        )
    if 300 <= code < 400:
        raise BadAgentAnswer(
            f"{what} was redirected ({code}) to {answer.location[:_SHOWN] or 'nowhere'}, which is not followed, as it "
            "could carry settings off this machine; give the agent's own https:// address with --keeper-api-base",
            status=code,
        )
    unfit = f"; {_sent(body)}" if body is not None and code in _UNFIT else ""
    raise BadAgentAnswer(f"{what} was answered with status {code}; the agent's log may say why{unfit}", status=code)


def _sent(body: Mapping[str, object]) -> str:
    """Return the form of a body that the agent did not take, and which items of the contract make it."""
    ((name, value),) = body.items()
    kind = "true or false" if isinstance(value, bool) else "text" if isinstance(value, str) else "a number"
    return (
        f"or it takes no {{{json.dumps(name)}: {kind}}}: look at the contract's put_value_field and put_value_form "
        "(docs/contract.md)"
    )


# --- liberal reading ------------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def json_object(answer: Answer, url: str) -> dict[str, object]:
    found = answer.json(url)
    if not isinstance(found, dict):
        raise BadAgentAnswer(f"GET {url}: the answer is a JSON {type(found).__name__}, no object")
    return found  # pyright: ignore[reportUnknownVariableType]  json.loads makes string keys


def text(value: object) -> str:
    """Return a setting's value as the documented string."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def flat(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from flat(inner, f"{key}.{name}" if key else str(name))  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield key, text(value)
