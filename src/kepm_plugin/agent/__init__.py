"""The agent's HTTPS API as a plugin may use it: settings, their status, health (HTTP Reference).

Owns httpx: none of its types or errors leave. Knows paths through `contract` only, and retries nothing; how patient
to be is for the caller.
"""

import json
import math
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread
import httpx

from ..contract import ASSUMED, HEALTH_PATH, REVERT, REVERT_ALL, SETTINGS_PATH, STATUS, Contract
from ..errors import (
    AgentRefused,
    AgentUnreachable,
    BadAgentAnswer,
    PeerNotTrusted,
    SettingsError,
    UnknownPlugin,
    UsageError,
)
from ..peer import PeerPolicy, check_peer, tls_context
from ._address import find_api_base
from ._renewal import RenewingTransport, certificate_error

__all__ = ["ANSWER_LIMIT", "AgentClient", "find_api_base", "open_agent"]

ANSWER_LIMIT: Final = 1024 * 1024
"""Bytes of an answer that are read; no documented one comes near."""
_CLOSE_GRACE: Final = 1.0  # seconds


class AgentClient:
    """Talks to one agent. Every method may raise these, and names the URL in them, never a value:

    AgentUnreachable: Nothing answered within the timeout; trying again later may work.
    AgentRefused: 403, which right after a plugin's start may mean "not registered yet".
    UnknownPlugin: 404, no plugin or no setting of that name.
    BadAgentAnswer: Any other status, or a body of no known form.
    PeerNotTrusted: Something else than the agent listens there.
    """

    def __init__(
        self, http: httpx.AsyncClient, api_base: str, *, contract: Contract, peer: PeerPolicy | None, timeout: float
    ) -> None:
        self._http = http
        self._api_base = api_base
        self._contract = contract
        self._peer: PeerPolicy | None = peer
        self._timeout = timeout

    async def settings(self, plugin: str) -> dict[str, str]:
        """Return a plugin's effective settings, flat, keys as the agent spells them.

        The agent documents strings. Other JSON is read too: `true`, numbers and arrays as their JSON text, null as
        "", objects flattened with dots.
        """
        url = self._url(plugin)
        answer = _json_object(await self._ask("GET", url, plugin=plugin), url)
        return dict(_flat(answer, ""))

    async def setting(self, plugin: str, key: str) -> str:
        """Return one setting as text; the answer may be the bare value or an object that holds it."""
        url = self._url(plugin, key)
        response = await self._ask("GET", url, plugin=plugin, key=key)
        if response.content_type == "text/plain":  # what an ASP.NET action makes of a bare string
            return response.text(url)
        try:
            return _text(self._contract.single_value(response.json(url)))
        except LookupError as error:
            expected = ", ".join(self._contract.value_fields)
            raise BadAgentAnswer(f"GET {url}: the answer has the fields {error}, none of {expected}") from None

    async def put_setting(self, plugin: str, key: str, value: str | float | bool) -> None:
        """Store a value in the agent's unified storage; it stays in force until a revert."""
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(
                f"setting {key!r} cannot be stored: it must be a finite number", key=key, rule="a finite number"
            )
        await self._ask("PUT", self._url(plugin, key), plugin=plugin, key=key, body=self._contract.put_body(value))

    async def revert(self, plugin: str) -> None:
        """Make the plugin's JSON file count again."""
        await self._ask("POST", self._url(plugin, REVERT), plugin=plugin)

    async def revert_all(self) -> None:
        """Make the JSON files of all plugins count again."""
        await self._ask("POST", f"{self._api_base}{SETTINGS_PATH}/{REVERT_ALL}")

    async def status(self, plugin: str) -> dict[str, object]:
        """Return what the agent says about changes of the plugin's configuration; the keys are not documented."""
        url = self._url(plugin, STATUS)
        return _json_object(await self._ask("GET", url, plugin=plugin), url)

    async def health(self) -> dict[str, object]:
        """Return `status`, `timestamp` and `version` of the agent, which anyone may ask for."""
        url = self._api_base + HEALTH_PATH
        return _json_object(await self._ask("GET", url), url)

    def _url(self, *names: str) -> str:
        for name in names:
            if name in ("", ".", ".."):  # would change the path
                raise UnknownPlugin(f"{name!r} is no name of a plugin or setting: give the plugin's id, or the key")
        return "/".join([self._api_base + SETTINGS_PATH, *(quote(name, safe="") for name in names)])

    async def _ask(self, method: str, url: str, *, plugin: str = "", key: str = "", body: object = None) -> "_Answer":
        what = f"{method} {url}"
        try:
            with anyio.fail_after(self._timeout):
                answer = await self._exchange(method, url, body)
        except TimeoutError:
            raise AgentUnreachable(
                f"{what}: no answer within {self._timeout:g} s; is the agent running, and is this its address?"
            ) from None
        except httpx.HTTPError as error:
            if (refused := certificate_error(error)) is not None:
                raise PeerNotTrusted(
                    f"{what}: the certificate is not one of the CA bundle's ({refused.verify_message}); export it "
                    "again from the agent, which makes a new one at every start unless a custom one is configured"
                ) from None
            text = str(error) or type(error).__name__
            raise AgentUnreachable(f"{what}: {text}; is the agent running, and is this its address?") from None
        except httpx.InvalidURL as error:
            raise UsageError(f"{what}: this is not a URL ({error}); correct --keeper-api-base") from None
        _check_status(answer, what, plugin, key)
        return answer

    async def _exchange(self, method: str, url: str, body: object) -> "_Answer":
        extensions = {} if self._peer is None else {"trace": self._check_connection}
        async with self._http.stream(
            method, url, content=None if body is None else json.dumps(body), extensions=extensions
        ) as response:
            read = bytearray()
            async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as chunks:
                async for chunk in chunks:
                    read += chunk
                    if len(read) > ANSWER_LIMIT:
                        raise BadAgentAnswer(f"{method} {url}: the answer is longer than {ANSWER_LIMIT} bytes")
            return _Answer(response.status_code, response.headers, bytes(read), method)

    async def _check_connection(self, event: str, details: Mapping[str, Any]) -> None:
        """Look who is at the other end of a new connection, before a byte is sent (httpcore's "trace" extension)."""
        if event != "connection.connect_tcp.complete" or self._peer is None:
            return
        stream = details["return_value"]
        trusted = False
        try:
            local, remote = stream.get_extra_info("client_addr")[:2], stream.get_extra_info("server_addr")[:2]
            await anyio.to_thread.run_sync(partial(check_peer, local, remote, self._peer), abandon_on_cancel=True)
            trusted = True
        finally:
            if not trusted:  # nobody else closes a stream that a trace function refuses
                with anyio.move_on_after(_CLOSE_GRACE, shield=True):
                    await stream.aclose()


@asynccontextmanager
async def open_agent(
    api_base: str,
    *,
    ca_bundle: Path | None = None,
    peer: PeerPolicy = "warn",
    contract: Contract = ASSUMED,
    timeout: float = 5.0,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[AgentClient]:
    """Yield a client for the agent at `api_base`; nothing is sent before the first call.

    The environment's proxies are not used and redirects are not followed: both could carry settings off this machine.

    Args:
        api_base: As `find_api_base` returns it.
        ca_bundle: Verifies the agent's certificate; then the certificate, not the socket's owner, is the proof.
        peer: What to do where nobody can tell who listens.
        contract: Forms that the vendor leaves open.
        timeout: Seconds for a whole request, connecting and reading included.
        transport: Answers instead of a network; for tests.

    Raises:
        PeerNotTrusted: `api_base` is not on loopback, and there is no CA bundle.
        UsageError: The CA bundle cannot be used.
    """
    async with httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113  the deadline stands around the whole request
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"},
        transport=transport or RenewingTransport(partial(tls_context, urlsplit(api_base).hostname or "", ca_bundle)),
    ) as http:
        yield AgentClient(http, api_base, contract=contract, peer=peer if ca_bundle is None else None, timeout=timeout)


class _Answer:
    """A response, read to its end."""

    def __init__(self, code: int, headers: httpx.Headers, body: bytes, method: str) -> None:
        self.code, self.location, self._body, self._method = code, headers.get("location", ""), body, method
        self.content_type = headers.get("content-type", "").partition(";")[0].strip().lower()

    def text(self, url: str) -> str:
        try:
            return self._body.decode("utf-8-sig")
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


def _check_status(answer: _Answer, what: str, plugin: str, key: str) -> None:
    code = answer.code
    if 200 <= code < 300:
        return
    if code == 403:
        raise AgentRefused(
            f"{what} was refused (403): the agent did not launch this process, or has not registered it yet; "
            "start the plugin through the agent, or try again in a moment"
        )
    if code == 404 and plugin:
        of_setting = f", or that plugin has no setting {key!r}" if key else ""
        raise UnknownPlugin(
            f"{what} was not found (404): the agent knows no plugin {plugin!r}{of_setting}; ids are matched exactly, "
            f"so compare them with the agent's Plugins/{plugin}.json and restart the agent if that file is new"
        )
    if 300 <= code < 400:
        raise BadAgentAnswer(
            f"{what} was redirected ({code}) to {answer.location or 'nowhere'}: use the https:// address", status=code
        )
    raise BadAgentAnswer(f"{what} was answered with status {code}; the agent's log may say why", status=code)


# --- liberal reading ------------------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _json_object(answer: _Answer, url: str) -> dict[str, object]:
    found = answer.json(url)
    if not isinstance(found, dict):
        raise BadAgentAnswer(f"GET {url}: the answer is a JSON {type(found).__name__}, no object")
    return found  # pyright: ignore[reportUnknownVariableType]  json.loads makes string keys


def _text(value: object) -> str:
    """Return a setting's value as the documented string."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _flat(value: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _flat(inner, f"{key}.{name}" if key else str(name))  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield key, _text(value)
