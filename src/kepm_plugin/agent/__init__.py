"""The agent's HTTPS API as a plugin may use it: settings, their status, health (HTTP Reference).

Owns httpx: none of its types or errors leave. Knows paths through `contract` only, and retries nothing; how patient
to be is for the caller.
"""

import json
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote, urlsplit

import anyio
import httpx

from ..contract import ASSUMED, HEALTH_PATH, REVERT, REVERT_ALL, SETTINGS_PATH, STATUS, Contract
from ..errors import (
    AgentUnreachable,
    BadAgentAnswer,
    SettingsError,
    SettingsReadOnly,
    UnknownPlugin,
    UsageError,
)
from ..peer import PeerPolicy, Trust, tls_error
from ._address import find_api_base
from ._answer import Answer, check_status, flat, json_object, text
from ._newcomer import Newcomer
from ._renewal import RenewingTransport

__all__ = ["ANSWER_LIMIT", "AgentClient", "find_api_base", "open_agent"]

ANSWER_LIMIT: Final = 1024 * 1024
"""Bytes of an answer that are read; no documented one comes near."""
_SHOWN: Final = 200  # characters of a header's value


class AgentClient:
    """Talks to one agent. Every method may raise these, and names the URL in them, never a value:

    AgentUnreachable: Nothing answered within the timeout; trying again later may work.
    AgentRefused: 403, which right after a plugin's start may mean "not registered yet".
    UnknownPlugin: 404, no plugin or no setting of that name.
    BadAgentAnswer: Any other status, or a body of no known form.
    PeerNotTrusted: Something else than the agent listens there.
    """

    def __init__(
        self, http: httpx.AsyncClient, api_base: str, *, contract: Contract, trust: Trust, timeout: float
    ) -> None:
        self._http = http
        self._api_base = api_base
        self._contract = contract
        self._trust = trust
        self._timeout = timeout

    async def settings(self, plugin: str) -> dict[str, str]:
        """Return a plugin's effective settings, flat, keys as the agent spells them.

        The agent documents strings. Other JSON is read too: `true`, numbers and arrays as their JSON text, null as
        "", objects flattened with dots.
        """
        url = self._url(plugin)
        answer = json_object(await self._ask("GET", url, plugin=plugin), url)
        return dict(flat(answer, ""))

    async def setting(self, plugin: str, key: str) -> str:
        """Return one setting as text; the answer may be the bare value or an object that holds it."""
        url = self._url(plugin, key)
        response = await self._ask("GET", url, plugin=plugin, key=key)
        if response.content_type == "text/plain":  # what an ASP.NET action makes of a bare string
            return response.text(url)
        try:
            return text(self._contract.single_value(response.json(url)))
        except LookupError as error:
            expected = ", ".join(self._contract.value_fields)
            raise BadAgentAnswer(
                f"GET {url}: the answer has the properties {error}, none of {expected}; look at the contract's "
                "value_fields (docs/contract.md)"
            ) from None

    async def put_setting(self, plugin: str, key: str, value: str | float | bool) -> None:
        """Store a value in the agent's unified storage; it stays in force until a revert."""
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingsError(
                f"setting {key!r} cannot be stored: it must be a finite number", key=key, rule="a finite number"
            )
        url = self._url(plugin, key)
        if self._contract.put_tier == "admin":
            raise SettingsReadOnly(f"PUT {url} was not tried: only administrators write settings, says put_tier")
        await self._ask("PUT", url, plugin=plugin, key=key, body=self._contract.put_body(value))

    async def revert(self, plugin: str) -> None:
        """Make the plugin's JSON file count again."""
        await self._ask("POST", self._url(plugin, REVERT), plugin=plugin)

    async def revert_all(self) -> None:
        """Make the JSON files of all plugins count again."""
        await self._ask("POST", f"{self._api_base}{SETTINGS_PATH}/{REVERT_ALL}")

    async def status(self, plugin: str) -> dict[str, object]:
        """Return what the agent says about changes of the plugin's configuration; the keys are not documented."""
        url = self._url(plugin, STATUS)
        return json_object(await self._ask("GET", url, plugin=plugin), url)

    async def health(self) -> dict[str, object]:
        """Return `status`, `timestamp` and `version` of the agent, which anyone may ask for."""
        url = self._api_base + HEALTH_PATH
        return json_object(await self._ask("GET", url), url)

    def _url(self, *names: str) -> str:
        for name in names:
            if name in ("", ".", ".."):  # would change the path
                raise UnknownPlugin(f"{name!r} is no name of a plugin or setting: give the plugin's id, or the key")
        return "/".join([self._api_base + SETTINGS_PATH, *(quote(name, safe="") for name in names)])

    async def _ask(
        self, method: str, url: str, *, plugin: str = "", key: str = "", body: Mapping[str, object] | None = None
    ) -> Answer:
        what = f"{method} {url}"
        try:
            with anyio.fail_after(self._timeout):
                answer = await self._exchange(method, url, body)
        except TimeoutError:
            raise AgentUnreachable(
                f"{what}: no answer within {self._timeout:g} s; is the agent running, and is this its address?"
            ) from None
        except httpx.HTTPError as error:
            if isinstance(error, httpx.ConnectError) and (failed := tls_error(what, error)) is not None:
                raise failed from None
            text = str(error) or type(error).__name__
            raise AgentUnreachable(f"{what}: {text}; is the agent running, and is this its address?") from None
        except httpx.InvalidURL as error:
            raise UsageError(f"{what}: this is not a URL ({error}); correct --keeper-api-base") from None
        check_status(answer, what, plugin, key, body)
        return answer

    async def _exchange(self, method: str, url: str, body: Mapping[str, object] | None) -> Answer:
        newcomer, done = Newcomer(self._trust), False
        try:
            async with self._http.stream(
                method,
                url,
                content=None if body is None else json.dumps(body),
                extensions={"trace": newcomer},
            ) as response:
                answer = Answer(
                    response.status_code, response.headers, await _read(response, f"{method} {url}"), method
                )
            done = True
            return answer
        finally:
            if not done:
                await newcomer.close()


async def _read(response: httpx.Response, what: str) -> bytes:
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):  # a few bytes could become gigabytes before they are counted
        raise BadAgentAnswer(f"{what}: the answer is compressed ({encoding[:_SHOWN]}), which nobody asked for")
    read = bytearray()
    async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as chunks:
        async for chunk in chunks:
            read += chunk
            if len(read) > ANSWER_LIMIT:
                raise BadAgentAnswer(f"{what}: the answer is longer than {ANSWER_LIMIT} bytes")
    return bytes(read)


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
        UsageError: The CA bundle cannot be used, or others could replace it.
    """
    trust = Trust(ca_bundle=ca_bundle, peer=peer)
    async with httpx.AsyncClient(
        trust_env=False,
        follow_redirects=False,
        timeout=None,  # noqa: S113  the deadline stands around the whole request
        headers={"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": "application/json"},
        transport=transport or RenewingTransport(partial(trust.context, urlsplit(api_base).hostname or "")),
    ) as http:
        yield AgentClient(http, api_base, contract=contract, trust=trust, timeout=timeout)
