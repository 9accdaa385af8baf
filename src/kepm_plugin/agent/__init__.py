"""The agent's HTTPS API as a plugin may use it: settings, their status, health (HTTP Reference).

Owns h11: none of its types or errors leave. Knows paths through `contract` only, and retries nothing; how patient
to be is for the caller.
"""

import json
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import anyio
import h11

from .._version import __version__
from ..contract import ASSUMED, HEALTH_PATH, REVERT, REVERT_ALL, SETTINGS_PATH, STATUS, Contract
from ..errors import (
    AgentUnreachable,
    BadAgentAnswer,
    SettingsError,
    SettingsReadOnly,
    UnknownPlugin,
    UsageError,
)
from ..peer import PeerPolicy, Trust
from ._address import find_api_base
from ._answer import Answer, check_status, flat, json_object, text
from ._connection import ANSWER_LIMIT, Request
from ._transport import HttpsTransport, Transport, unreachable

__all__ = ["ANSWER_LIMIT", "AgentClient", "find_api_base", "open_agent"]

_HEADERS: Final[Mapping[str, str]] = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": f"kepm-plugin/{__version__}",
}


class AgentClient:
    """Talks to one agent. Every method may raise these, and names the URL in them, never a value:

    AgentUnreachable: Nothing answered within the timeout; trying again later may work.
    AgentRefused: 403, which right after a plugin's start may mean "not registered yet".
    UnknownPlugin: 404, no plugin or no setting of that name.
    BadAgentAnswer: Any other status, or a body of no known form.
    PeerNotTrusted: Something else than the agent listens there.
    """

    def __init__(self, transport: Transport, host: str, api_base: str, *, contract: Contract, timeout: float) -> None:
        self._transport = transport
        self._headers = {"Host": host, **_HEADERS}
        self._api_base = api_base
        self._contract = contract
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
                sent = b"" if body is None else json.dumps(body).encode()
                answer = await self._transport.exchange(Request.made(method, url, self._headers, sent))
        except TimeoutError:
            raise AgentUnreachable(
                f"{what}: no answer within {self._timeout:g} s; is the agent running, and is this its address?"
            ) from None
        except (OSError, h11.RemoteProtocolError) as error:
            raise unreachable(what, error) from None
        except h11.LocalProtocolError as error:
            raise UsageError(f"{what}: this is not a URL ({error}); correct --keeper-api-base") from None
        check_status(answer, what, plugin, key, body)
        return answer


@asynccontextmanager
async def open_agent(
    api_base: str,
    *,
    ca_bundle: Path | None = None,
    peer: PeerPolicy = "warn",
    contract: Contract = ASSUMED,
    timeout: float = 5.0,
    transport: Transport | None = None,
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
    parts = urlsplit(api_base)
    try:
        host = parts.netloc.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise UsageError(f"{api_base!r} is not a URL ({error}); correct --keeper-api-base") from None
    if transport is None:
        transport = HttpsTransport(parts.hostname or "", parts.port or 443, Trust(ca_bundle=ca_bundle, peer=peer))
    try:
        yield AgentClient(transport, host, api_base, contract=contract, timeout=timeout)
    finally:
        transport.close()
