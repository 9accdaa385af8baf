"""`agent`: reading liberally, refusing with a remedy, and whom it talks to."""

import json
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from kepm_plugin import peer as peer_module
from kepm_plugin.agent import ANSWER_LIMIT, AgentClient, find_api_base, open_agent
from kepm_plugin.contract import Contract
from kepm_plugin.errors import (
    AgentError,
    AgentRefused,
    AgentUnreachable,
    BadAgentAnswer,
    PeerNotTrusted,
    SettingsError,
    UnknownPlugin,
    UsageError,
)

BASE = "https://127.0.0.1:6889"


def answering(body: object = None, code: int = 200, **headers: str) -> httpx.MockTransport:
    """An agent that gives one answer, whatever it is asked."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.MockTransport(
        lambda _: httpx.Response(code, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})
    )


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"broker.host": "127.0.0.1", "broker.port": "8675"}, {"broker.host": "127.0.0.1", "broker.port": "8675"}),
        (
            {"On": True, "off": False, "n": 3, "x": 1.5, "none": None},
            {"On": "true", "off": "false", "n": "3", "x": "1.5", "none": ""},
        ),
        ({"scan": {"Root": "/etc", "deep": {"er": 1}}}, {"scan.Root": "/etc", "scan.deep.er": "1"}),
        ({"paths": ["/a", 1, None], "empty": []}, {"paths": '["/a", 1, null]', "empty": "[]"}),
        ({"name": "Zoë"}, {"name": "Zoë"}),
        ({"list": ["é"]}, {"list": '["é"]'}),
        ({}, {}),
    ],
)
async def test_settings_are_flat_strings_however_the_agent_spells_them(answer: object, expected: object) -> None:
    async with open_agent(BASE, transport=answering(answer)) as agent:
        assert await agent.settings("MyWorker") == expected


async def test_a_byte_order_mark_is_no_obstacle() -> None:
    async with open_agent(BASE, transport=answering(b'\xef\xbb\xbf{"a": "1"}')) as agent:
        assert await agent.settings("MyWorker") == {"a": "1"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("/etc", "/etc"),
        (3, "3"),
        (True, "true"),
        (None, ""),
        ({"value": "/etc"}, "/etc"),
        ({"Value": 7}, "7"),
        ({"settingName": "root", "SettingValue": "/etc"}, "/etc"),
        ({"value": ["a"]}, '["a"]'),
    ],
)
async def test_one_setting_may_be_bare_or_in_an_object_of_any_casing(answer: object, expected: str) -> None:
    async with open_agent(BASE, transport=answering(answer)) as agent:
        assert await agent.setting("MyWorker", "root") == expected


async def test_one_setting_may_be_plain_text() -> None:
    async with open_agent(BASE, transport=answering(b"/etc", content_type="text/plain; charset=utf-8")) as agent:
        assert await agent.setting("MyWorker", "root") == "/etc"


async def test_status_and_health_are_given_as_they_are() -> None:
    async with open_agent(BASE, transport=answering({"Status": "healthy", "n": 1})) as agent:
        assert await agent.status("MyWorker") == await agent.health() == {"Status": "healthy", "n": 1}


# --- asking ---------------------------------------------------------------------------------------------------------

Call = Callable[[AgentClient], Awaitable[object]]

CALLS: dict[str, tuple[Call, str]] = {
    "settings": (lambda a: a.settings("MyWorker"), "GET /api/PluginSettings/MyWorker"),
    "setting": (lambda a: a.setting("MyWorker", "root"), "GET /api/PluginSettings/MyWorker/root"),
    "put": (lambda a: a.put_setting("MyWorker", "root", "hush"), "PUT /api/PluginSettings/MyWorker/root"),
    "revert": (lambda a: a.revert("MyWorker"), "POST /api/PluginSettings/MyWorker/revert"),
    "revert all": (lambda a: a.revert_all(), "POST /api/PluginSettings/revert-all"),
    "status": (lambda a: a.status("MyWorker"), "GET /api/PluginSettings/MyWorker/status"),
    "health": (lambda a: a.health(), "GET /health"),
    "quoted": (
        lambda a: a.setting("My Wörker", "a/b?c#d%e"),
        "GET /api/PluginSettings/My%20W%C3%B6rker/a%2Fb%3Fc%23d%25e",
    ),
}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS.keys())
async def test_requests_go_to_the_documented_paths(call: Call, expected: str) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.method} {request.url.raw_path.decode()}")
        return httpx.Response(200, json={"value": "x"})

    async with open_agent(BASE, transport=httpx.MockTransport(answer)) as agent:
        await call(agent)
    assert asked == [expected]


@pytest.mark.parametrize("value", ["text", "", 3, 1.5, True])
@pytest.mark.parametrize(
    "contract", [Contract(), Contract(put_value_field="settingValue")], ids=["assumed", "replaced"]
)
async def test_put_sends_the_value_as_the_json_type_that_it_is(value: str | float | bool, contract: Contract) -> None:
    bodies: list[tuple[object, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append((json.loads(request.content), request.headers["content-type"]))
        return httpx.Response(204)

    async with open_agent(BASE, contract=contract, transport=httpx.MockTransport(answer)) as agent:
        await agent.put_setting("MyWorker", "root", value)
    assert bodies == [({contract.put_value_field: value}, "application/json")]


async def test_a_number_that_json_does_not_have_is_refused_here() -> None:
    async with open_agent(BASE, transport=answering()) as agent:
        with pytest.raises(SettingsError, match=r"'ratio'.*finite") as caught:
            await agent.put_setting("MyWorker", "ratio", float("nan"))
    assert caught.value.key == "ratio"


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_change_the_path_is_refused_here(name: str) -> None:
    async with open_agent(BASE, transport=answering({})) as agent:
        with pytest.raises(UnknownPlugin, match="no name of a plugin or setting"):
            await agent.settings(name)
        with pytest.raises(UnknownPlugin):
            await agent.setting("MyWorker", name)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [call for call, _ in CALLS.values()], ids=CALLS.keys())
@pytest.mark.parametrize(
    ("code", "error"),
    [(403, AgentRefused), (401, BadAgentAnswer), (500, BadAgentAnswer), (503, BadAgentAnswer), (307, BadAgentAnswer)],
)
async def test_statuses_become_named_errors_with_the_url(call: Call, code: int, error: type[AgentError]) -> None:
    async with open_agent(BASE, transport=answering({}, code, location="http://127.0.0.1:6888/hop")) as agent:
        with pytest.raises(error, match=rf"(GET|PUT|POST) {BASE}/.*{code}") as caught:
            await call(agent)
    assert type(caught.value) is error
    assert "hush" not in str(caught.value)


async def test_a_refusal_says_what_to_do() -> None:
    async with open_agent(BASE, transport=answering({}, 403)) as agent:
        with pytest.raises(AgentRefused, match="start the plugin through the agent, or try again"):
            await agent.settings("MyWorker")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (CALLS["settings"][0], r"no plugin 'MyWorker';.*Plugins/MyWorker\.json"),
        (CALLS["setting"][0], r"no plugin 'MyWorker', or that plugin has no setting 'root'"),
        (CALLS["put"][0], r"no setting 'root'"),
    ],
)
async def test_what_is_not_found_is_named(call: Call, expected: str) -> None:
    async with open_agent(BASE, transport=answering({}, 404)) as agent:
        with pytest.raises(UnknownPlugin, match=expected):
            await call(agent)


async def test_an_agent_without_the_health_path_is_no_unknown_plugin() -> None:
    async with open_agent(BASE, transport=answering({}, 404)) as agent:
        with pytest.raises(BadAgentAnswer, match="404"):
            await agent.health()


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[1]", b'"text"', b"null", b'{"a": NaN}', b'{"a": "\xff"}', b"[" * 100_000],
    ids=["empty", "html", "array", "string", "null", "NaN", "not UTF-8", "deep"],
)
async def test_a_body_of_no_known_form_is_refused(body: bytes) -> None:
    async with open_agent(BASE, transport=answering(body)) as agent:
        with pytest.raises(BadAgentAnswer, match=f"GET {BASE}/api/PluginSettings/MyWorker"):
            await agent.settings("MyWorker")


async def test_an_object_without_a_known_field_is_refused_by_its_fields() -> None:
    async with open_agent(BASE, transport=answering({"data": "hush"})) as agent:
        with pytest.raises(BadAgentAnswer, match="properties data, none of value, settingValue; look at") as caught:
            await agent.setting("MyWorker", "root")
    assert "hush" not in str(caught.value)


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async with open_agent(BASE, transport=answering(b" " * (ANSWER_LIMIT + 1))) as agent:
        with pytest.raises(BadAgentAnswer, match=f"longer than {ANSWER_LIMIT} bytes"):
            await agent.settings("MyWorker")


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadError(""), httpx.RemoteProtocolError("cut off")], ids=repr
)
async def test_what_goes_wrong_on_the_way_is_unreachable(error: Exception) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        raise error

    async with open_agent(BASE, transport=httpx.MockTransport(answer)) as agent:
        with pytest.raises(AgentUnreachable, match="is the agent running"):
            await agent.settings("MyWorker")


async def test_an_agent_that_does_not_answer_is_unreachable_after_the_timeout() -> None:
    async def answer(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError

    async with open_agent(BASE, timeout=0.01, transport=httpx.MockTransport(answer)) as agent:
        with pytest.raises(AgentUnreachable, match=r"no answer within 0\.01 s"):
            await agent.settings("MyWorker")


async def test_an_address_that_httpx_cannot_read_is_a_usage_error() -> None:
    async with open_agent("https://127.0.0.1:6889\x00", transport=answering({})) as agent:
        with pytest.raises(UsageError, match="--keeper-api-base"):
            await agent.settings("MyWorker")


async def test_another_host_needs_a_bundle() -> None:
    with pytest.raises(PeerNotTrusted, match="CA bundle"):
        async with open_agent("https://10.0.0.1:6889"):
            pass


# --- over TLS -------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002


@contextmanager
def https_server(certificate: Any) -> Generator[str]:
    """An agent of the standard library; yields its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(5)


async def test_a_self_signed_certificate_on_loopback_is_accepted(certificate: Any) -> None:
    with https_server(certificate) as base, anyio.fail_after(5):
        async with open_agent(base, peer="require") as agent:
            assert await agent.settings("MyWorker") == {"path": "/api/PluginSettings/MyWorker"}


async def test_a_bundle_proves_the_agent(certificate: Any) -> None:
    with https_server(certificate) as base, anyio.fail_after(5):
        async with open_agent(base, ca_bundle=certificate.file) as agent:
            assert await agent.health() == {"path": "/health"}


async def test_a_certificate_that_the_bundle_does_not_hold_is_refused(certificate: Any, other_certificate: Any) -> None:
    with https_server(certificate) as base, anyio.fail_after(5):
        async with open_agent(base, ca_bundle=other_certificate.file) as agent:
            with pytest.raises(PeerNotTrusted, match=r"CA bundle.*export it again"):
                await agent.health()


async def test_a_bundle_that_is_replaced_is_read_again(
    certificate: Any, other_certificate: Any, tmp_path: Path
) -> None:
    """An agent that starts anew has another certificate."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(other_certificate.file.read_bytes())
    with https_server(certificate) as base, anyio.fail_after(5):
        async with open_agent(base, ca_bundle=bundle) as agent:
            bundle.write_bytes(b"half of")
            with pytest.raises(PeerNotTrusted, match="give a PEM file"):
                await agent.health()
            bundle.write_bytes(certificate.file.read_bytes())
            for _ in range(2):
                assert await agent.health() == {"path": "/health"}


async def test_a_stranger_is_refused_before_a_byte_is_sent(certificate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, object, object]] = []

    def refuse(local: object, remote: object, policy: object, *, answered: bool) -> None:
        seen.append((local, remote, policy))
        raise PeerNotTrusted("a stranger")

    def unknown(*_: object, answered: bool) -> bool:
        return False

    monkeypatch.setattr(peer_module, "check_peer", refuse)
    monkeypatch.setattr(peer_module, "known_peer", unknown)
    with https_server(certificate) as base, anyio.fail_after(5):
        async with open_agent(base, peer="require") as agent:
            with pytest.raises(PeerNotTrusted, match="a stranger"):
                await agent.health()
        port = int(base.rpartition(":")[2])
    [(local, remote, policy)] = seen
    assert (remote, policy) == (("127.0.0.1", port), "require")
    assert local != remote


async def test_nothing_listens(free_tcp_port: int) -> None:
    async with open_agent(f"https://127.0.0.1:{free_tcp_port}") as agent:
        with anyio.fail_after(5), pytest.raises(AgentUnreachable, match=f"127.0.0.1:{free_tcp_port}/health"):
            await agent.health()


async def test_a_proxy_of_the_environment_is_not_used(certificate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with https_server(certificate) as base, anyio.fail_after(5):
        async with open_agent(base) as agent:
            assert await agent.health() == {"path": "/health"}


# --- where the agent is ---------------------------------------------------------------------------------------------


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    """A plugin's program below an agent root."""
    folder = tmp_path / "Plugins" / "bin" / "MyWorker"
    folder.mkdir(parents=True)
    return folder / "MyWorker"


def write_port(folder: Path, content: str) -> None:
    (folder / "appsettings.json").write_text(content, "utf-8")


@pytest.mark.parametrize(
    ("argument", "environ", "content", "expected"),
    [
        ("https://127.0.0.1:1/", {"KEPM_API_BASE": "https://127.0.0.1:2"}, None, "https://127.0.0.1:1"),
        ("{KeeperApiBaseUrl}", {"KEPM_API_BASE": "https://127.0.0.1:2/"}, None, "https://127.0.0.1:2"),
        ("{KeeperApiBaseUrl}/", {}, None, BASE),
        (None, {"KEPM_API_BASE": ""}, None, BASE),
        ("", {}, '{"Settings": {"KestrelHttpsPort": 7000}}', "https://127.0.0.1:7000"),
        (None, {}, '\ufeff{"settings": {"kestrelHTTPSport": "7000"}}', "https://127.0.0.1:7000"),
        (None, {}, '{"Settings": {}}', BASE),
        (None, {}, '{"Settings": 1}', BASE),
        (None, {}, "[]", BASE),
    ],
)
def test_the_first_source_that_says_something_wins(
    executable: Path, argument: str | None, environ: Mapping[str, str], content: str | None, expected: str
) -> None:
    if content is not None:
        write_port(executable.parents[3], content)
    assert find_api_base(argument, environ, executable) == expected


def test_the_nearest_file_that_names_a_port_wins(executable: Path) -> None:
    write_port(executable.parents[3], '{"Settings": {"KestrelHttpsPort": 7000}}')
    write_port(executable.parent, '{"Logging": {}}')
    assert find_api_base(None, {}, executable) == "https://127.0.0.1:7000"
    write_port(executable.parents[2], '{"Settings": {"KestrelHttpsPort": 7001}}')
    assert find_api_base(None, {}, executable) == "https://127.0.0.1:7001"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"Settings": {"KestrelHttpsPort": "x"}}',
        '{"Settings": {"KestrelHttpsPort": 70000}}',
        '{"Settings": {"KestrelHttpsPort": true}}',
    ],
)
def test_a_file_that_cannot_be_used_is_said_and_passed_over(
    executable: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_port(executable.parents[3], '{"Settings": {"KestrelHttpsPort": 7000}}')
    write_port(executable.parent, content)
    with caplog.at_level(logging.WARNING, "kepm_plugin.agent"):
        assert find_api_base(None, {}, executable) == "https://127.0.0.1:7000"
    assert re.search(r"appsettings\.json.*looking further", caplog.text)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:6888", "not encrypted"),
        ("127.0.0.1:6889", "not the address"),
        ("https://", "not the address"),
        ("https://127.0.0.1:port", "not a URL"),
        ("https://user:hush@127.0.0.1", "not the address"),
        ("https://127.0.0.1:6889/?a=1", "not the address"),
        ("ftp://127.0.0.1", "not the address"),
    ],
)
@pytest.mark.parametrize("source", ["--keeper-api-base", "KEPM_API_BASE"])
def test_an_address_that_is_none_is_refused_with_its_source(
    executable: Path, url: str, reason: str, source: str
) -> None:
    argument, environ = (url, {}) if source.startswith("--") else (None, {source: url})
    with pytest.raises(UsageError, match=f"^{source} .*{reason}.*{BASE}"):
        find_api_base(argument, environ, executable)
