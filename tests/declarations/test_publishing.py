"""Publishers, requests and the manifest's two lists: exactly what the code uses."""

import socket
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from kepm_plugin import Plugin, Publisher, Request
from kepm_plugin.errors import BadPayload, BadTopic, PluginDefinitionError, SettingsError, TopicClash, UndeclaredTopic
from kepm_plugin.message import Publication
from kepm_plugin.plugin import Declarations
from kepm_plugin.settings import Settings

Define = Callable[..., type[Any]]


class Finding(msgspec.Struct):
    path: str


class Correlated(msgspec.Struct, rename="camel"):
    correlation_id: str


def refusal(define: Callable[[], object]) -> str:
    with pytest.raises(PluginDefinitionError) as caught:
        define()
    return str(caught.value)


# --- publishers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            Publisher[str]("Findings/+"),
            "Worker.out: topic 'Findings/+': '+' is for filters, a declaration names its level",
        ),
        (Publisher[str]("MyWorker/Findings"), "topics are relative to the plugin's id, 'MyWorker'; write 'Findings'"),
        (Publisher[str]("KeeperLogger"), "for the topic of KeeperLogger write '/KeeperLogger'"),
        (Publisher[str]("{payload}"), "Worker.out: a level cannot be called 'payload'; choose another name"),
        (Publisher[str]("{timeout}"), "a level cannot be called 'timeout'"),
        (Publisher[str]("x/{class}"), "a level cannot be called 'class'"),
        (Publisher[str]("Findings", qos=3), "Worker.out: qos is 3; give 0, 1 or 2"),
        (
            Publisher[set[socket.socket]]("Findings"),
            "Worker.out: set[socket.socket] cannot be a payload type: JSON cannot",
        ),
    ],
)
def test_a_wrong_publisher_is_named(plugin: Define, made: object, said: str) -> None:
    assert said in refusal(lambda: plugin(out=made))


def test_a_publisher_without_a_topic_is_told(plugin: Define) -> None:
    wrong: Any = 42
    assert refusal(lambda: plugin(out=Publisher[str](wrong))).startswith("Worker.out: topic '42': a topic is a text")


def test_a_publisher_of_a_base_or_a_mixin_is_the_plugin_s(plugin: Define) -> None:
    class Base(Plugin, abstract=True):
        first = Publisher[str]("First")
        hidden = Publisher[str]("Hidden")

    class Mixin:
        second = Publisher[str]("Second/{x}")

    worker = plugin(Mixin, Base, hidden=None)
    assert worker.declarations().publish[1:] == (
        "MyWorker/First",
        "MyWorker/Link",
        "MyWorker/Second/+",
        "MyWorker/Status",
    )


def test_the_own_id_is_found_in_a_base_too(plugin: Define) -> None:
    class Base(Plugin, abstract=True):
        out = Publisher[str]("MyWorker/Out")

    worker = plugin(Base)
    assert refusal(worker.declarations).endswith(
        "Base.out: topic 'MyWorker/Out': topics are relative to the plugin's id, 'MyWorker'; write 'Out'"
    )


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (
            "Status",
            "where the framework reports the plugin's state; take another topic, or turn that off with heartbeat",
        ),
        ("status", "where the framework reports the plugin's state"),
        ("Link", "is the framework's own, for the echo that proves the link"),
    ],
)
def test_a_publisher_does_not_mix_with_the_framework_s_topics(plugin: Define, topic: str, said: str) -> None:
    worker = plugin(out=Publisher[str](topic))
    assert refusal(worker.declarations).startswith(f"Worker.out: 'MyWorker/{topic}' ")
    assert said in refusal(worker.declarations)
    plugin(out=Publisher[str](topic), heartbeat=None, echo=False).declarations()


# --- requests ---------------------------------------------------------------------------------------------------------


def ask(topic: str = "/Other/Commands/x", *, response: str = "/Other/Responses/x", timeout: Any = 5) -> Any:
    return Request[Finding, str](topic, response=response, timeout=timeout)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (ask("/Other/+"), "Worker.ask: topic '/Other/+': '+' is for filters"),
        (ask(response="/Other/#"), "Worker.ask: topic '/Other/#': '#' is for filters"),
        (ask("MyWorker/Commands/x"), "topics are relative to the plugin's id"),
        (ask("KeeperPolicy/Commands/x"), "for the topic of KeeperPolicy write '/KeeperPolicy/Commands/x'"),
        (ask("/Other/{wait}"), "a level cannot be called 'wait'"),
        (ask(timeout=0), "Worker.ask: timeout is 0; give seconds above 0"),
        (ask(timeout="5"), "Worker.ask: timeout is '5'; give seconds above 0"),
        (
            ask(response="/Other/Responses/{host}"),
            "'/Other/Responses/{host}' has a parameter that '/Other/Commands/x' has not; use the same names in both",
        ),
        (
            Request[str, str]("/Other/x", response="/Other/y"),
            "a question cannot be str, since its correlation id travels in it; use a type that is a JSON object",
        ),
        (Request[bytes, str]("/Other/x", response="/Other/y"), "a question cannot be bytes"),
        (Request[Correlated, str]("/Other/x", response="/Other/y"), "Correlated has the property 'correlationId'"),
        (Request[Finding, set[socket.socket]]("/Other/x", response="/Other/y"), "JSON cannot carry socket"),
    ],
)
def test_a_wrong_request_is_named(plugin: Define, made: object, said: str) -> None:
    told = refusal(lambda: plugin(ask=made))
    assert told.startswith("Worker.ask: ")
    assert said in told


def test_both_topics_of_a_request_are_listed(plugin: Define) -> None:
    worker = plugin(ask=ask("/Other/Commands/{verb}", response="/Other/Responses/{verb}"), echo=False, heartbeat=None)
    declared = worker.declarations()
    assert declared.publish == ("KeeperLogger", "Other/Commands/+")
    assert declared.subscribe == declared.filters == ("Other/Responses/+",)
    assert declared.requests[0].owner == "Worker.ask"


def test_requests_may_share_a_response_topic_but_not_with_a_handler(plugin: Define, handler: Define) -> None:
    worker = plugin(one=ask(), two=ask(timeout=1))
    assert worker.declarations().filters == ("MyWorker/Link", "Other/Responses/x")
    worker.topic("/Other/{rest:path}")(handler())
    assert worker.declarations().filters == ("MyWorker/Link", "Other/#")
    worker.topic("/Other/Responses/x")(handler(__qualname__="Taker"))
    with pytest.raises(
        TopicClash, match=r"Worker\.one and Taker both take 'Other/Responses/x': one message has one han"
    ):
        worker.declarations()


# --- the lists --------------------------------------------------------------------------------------------------------


def test_a_bare_plugin_lists_its_log_its_state_and_its_echo(plugin: Define) -> None:
    declared = plugin().declarations()
    assert declared.publish == ("KeeperLogger", "MyWorker/Link", "MyWorker/Status")
    assert declared.subscribe == declared.filters == ("MyWorker/Link",)


def test_what_is_turned_off_is_not_listed(plugin: Define) -> None:
    declared = plugin(echo=False, heartbeat=None).declarations()
    assert (declared.publish, declared.subscribe, declared.filters) == (("KeeperLogger",), (), ())


@pytest.mark.parametrize(
    ("command", "subscribed", "answered"),
    [
        ("scan", "MyWorker/Commands/scan", "MyWorker/Responses/scan"),
        ("scan/{host}", "MyWorker/Commands/scan/+", "MyWorker/Responses/scan/+"),
        ("{verb}", "MyWorker/Commands/+", "MyWorker/Responses/+"),
        ("{verb:path}", "MyWorker/Commands/#", "MyWorker/Responses/#"),
    ],
)
def test_a_command_is_answered_on_its_response_topic(
    plugin: Define, handler: Define, command: str, subscribed: str, answered: str
) -> None:
    worker = plugin(echo=False, heartbeat=None)
    worker.command(command)(handler())
    declared = worker.declarations()
    assert declared.filters == declared.subscribe == (subscribed,)
    assert declared.publish == ("KeeperLogger", answered)
    response = declared.handlers[0].response
    assert response is not None
    assert response.filter("MyWorker") == answered


def test_a_response_topic_has_the_command_s_values(plugin: Define, handler: Define) -> None:
    worker = plugin()
    worker.command("scan/{host}")(handler())
    (route,) = worker.declarations().handlers
    values = route.spec.pattern.values("MyWorker", "MyWorker/Commands/scan/web1")
    assert route.response.topic("MyWorker", values) == "MyWorker/Responses/scan/web1"


def test_the_lists_hold_the_widest_filters_only(plugin: Define, handler: Define) -> None:
    worker = plugin(
        high=Publisher[str]("Findings/high"),
        findings=Publisher[str]("Findings/{severity}"),
        log=Publisher[str]("/KeeperLogger"),
        allow_publish=("Findings/low", "/Other/Commands/x"),
        allow_subscribe=("Events/web1", "/Other/{rest:path}"),
    )
    for command in ("scan", "reset", "{verb}"):
        worker.command(command)(handler())
    worker.topic("")(handler())
    worker.topic("Events/{host}")(handler())
    declared = worker.declarations()
    assert declared.publish == (
        "KeeperLogger",
        "MyWorker/Findings/+",
        "MyWorker/Link",
        "MyWorker/Responses/+",
        "MyWorker/Status",
        "Other/Commands/x",
    )
    assert declared.subscribe == (
        "MyWorker",
        "MyWorker/Commands/+",
        "MyWorker/Events/+",
        "MyWorker/Link",
        "Other/#",
    )
    assert declared.filters == ("MyWorker", "MyWorker/Commands/+", "MyWorker/Events/+", "MyWorker/Link")
    assert [name for name, _ in declared.routes] == [route.filter for route in declared.handlers]


def test_an_abstract_base_s_topics_are_those_of_each_subclass(handler: Define) -> None:
    class Base(Plugin, abstract=True):
        out = Publisher[str]("Out")

    Base.command("scan")(handler())

    class First(Base):
        id = "First"

    class Second(Base):
        id = "Second"

    for kind in (First, Second):
        declared = kind.declarations()
        assert declared.filters == (f"{kind.id}/Commands/scan", f"{kind.id}/Link")
        assert declared.publish == (
            "KeeperLogger",
            f"{kind.id}/Link",
            f"{kind.id}/Out",
            f"{kind.id}/Responses/scan",
            f"{kind.id}/Status",
        )


@pytest.mark.parametrize("attribute", ["allow_publish", "allow_subscribe"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("Events", " is one text, 'Events'; write {0} = ('Events',)"),
        (None, " is None; give a tuple of texts"),
        ((3,), " is (3,); give a tuple of texts"),
        (
            ("Events/#",),
            ": topic 'Events/#': '#' is for filters, a declaration names its levels; write 'Events/{rest:path}",
        ),
        (("MyWorker/x",), ": topic 'MyWorker/x': topics are relative to the plugin's id, 'MyWorker'; write 'x'"),
    ],
)
def test_wrong_allowed_topics_are_named(plugin: Define, attribute: str, value: object, said: str) -> None:
    worker = plugin(**{attribute: value})
    assert f"Worker.{attribute}{said.replace('{0}', attribute)}" in refusal(worker.declarations)


# --- the running plugin -----------------------------------------------------------------------------------------------


class Recorder:
    """A host that keeps what it is given."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = plugin
        self.declarations: Declarations = plugin.declarations()
        self.published: list[tuple[Publication, Any]] = []
        self.questions: list[tuple[Any, ...]] = []
        self.written: list[dict[str, Any]] = []

    async def publish(self, publication: Publication, *, wait: str, timeout: float | None) -> None:
        self.published.append((publication, (wait, timeout)))

    def publish_soon(self, publication: Publication) -> None:
        self.published.append((publication, None))

    async def request(self, *question: Any) -> Any:
        self.questions.append(question)
        return "yes"

    def subscribe(self, topic_filter: str) -> str:
        return topic_filter

    async def write_settings(self, before: Settings, changes: dict[str, Any]) -> None:
        self.written.append(changes)

    async def revert_settings(self) -> None:
        self.written.append({})

    async def agent_settings(self) -> dict[str, str]:
        return {"broker.port": "8675"}

    async def agent_setting(self, key: str) -> str:
        return {"broker.port": "8675"}[key]


def running(kind: type[Any]) -> tuple[Any, Recorder]:
    plugin = kind()
    plugin.host = Recorder(plugin)
    return plugin, plugin.host


async def test_a_publisher_fills_its_topic_and_encodes_its_type(plugin: Define) -> None:
    worker, host = running(
        plugin(
            findings=Publisher[Finding]("Findings/{severity}", qos=2),
            text=Publisher[str]("Text"),
            maybe=Publisher[str | None]("Maybe"),
        )
    )
    await worker.findings.publish(Finding("/etc"), severity="high", wait="acknowledged", timeout=3, retain=True)
    worker.findings.publish_soon(Finding("/etc"), severity="low")
    await worker.text.publish("plain")
    await worker.maybe.publish("quoted")
    assert host.published == [
        (Publication("MyWorker/Findings/high", b'{"path":"/etc"}', 2, True), ("acknowledged", 3)),
        (Publication("MyWorker/Findings/low", b'{"path":"/etc"}', 2), None),
        (Publication("MyWorker/Text", b"plain"), ("queued", None)),
        (Publication("MyWorker/Maybe", b'"quoted"'), ("queued", None)),
    ]


async def test_a_wrong_level_or_payload_is_not_published(plugin: Define) -> None:
    worker, host = running(plugin(findings=Publisher[Any]("Findings/{severity}")))
    for level in ("", "a/b", "+", "#", "\0"):
        with pytest.raises(BadTopic):
            await worker.findings.publish(1, severity=level)
    with pytest.raises(BadTopic, match="needs a value for 'severity'"):
        worker.findings.publish_soon(1)
    with pytest.raises(BadPayload, match="a socket cannot be a payload"), socket.socket() as unfit:
        await worker.findings.publish(unfit, severity="high")
    assert host.published == []


async def test_a_request_sends_its_levels_and_its_types(plugin: Define) -> None:
    worker, host = running(
        plugin(ask=ask("/Other/{host}/{verb}", response="/Other/{host}/done", timeout=2.5), echo=False)
    )
    assert await worker.ask(Finding("/etc"), host="web1", verb="scan") == "yes"
    assert host.questions == [("Other/web1/scan", "Other/web1/done", Finding("/etc"), str, 2.5)]


async def test_what_is_not_declared_is_neither_published_nor_subscribed(plugin: Define) -> None:
    worker, host = running(plugin(allow_publish=("Allowed/{x}",), allow_subscribe=("/Other/{x}",)))
    await worker.publish("Allowed/1", {"a": 1}, qos=0, retain=True)
    await worker.publish("/MyWorker/Allowed/1", "text")
    assert worker.subscribe("/Other/+") == "Other/+"
    assert [one.topic for one, _ in host.published] == ["MyWorker/Allowed/1"] * 2
    with pytest.raises(UndeclaredTopic) as caught:
        await worker.publish("Elsewhere", b"")
    assert str(caught.value) == (
        "cannot publish 'MyWorker/Elsewhere': the manifest does not declare it, and the agent's broker would drop it "
        "silently; declare it with a Publisher or allow_publish. Declared: KeeperLogger, MyWorker/Allowed/+, "
        "MyWorker/Link, MyWorker/Status"
    )
    for topic in ("", "/Other/#", "/#", "Allowed/1"):
        with pytest.raises(UndeclaredTopic, match=r"declare it with a handler or allow_subscribe"):
            worker.subscribe(topic)
    for topic in ("Allowed/+", "Allowed/\0", "/"):
        with pytest.raises(BadTopic):
            await worker.publish(topic, b"")
    with pytest.raises(BadTopic):
        worker.subscribe("Allowed/x#")


class WorkerSettings(Settings):
    depth: int = 3
    folders: list[str] = ["/etc"]  # noqa: RUF012


async def test_a_draft_of_settings_writes_what_differs_and_leaves_the_snapshot(plugin: Define) -> None:
    worker, host = running(plugin(__annotations__={"settings": WorkerSettings}))
    worker.settings = WorkerSettings()
    async with worker.edit_settings() as draft:
        draft.depth = 3
    async with worker.edit_settings() as draft:
        draft.depth = draft.depth + 1
        draft.folders.append("/usr")
    assert host.written == [{"depth": 4, "folders": ["/etc", "/usr"]}]
    assert worker.settings == WorkerSettings()
    await worker.revert_settings()
    assert await worker.agent_settings() == {"broker.port": "8675"}
    assert await worker.agent_setting("broker.port") == "8675"


async def test_a_draft_knows_its_settings(plugin: Define) -> None:
    worker, host = running(plugin())
    worker.settings = WorkerSettings()
    with pytest.raises(SettingsError, match="there is no setting 'dept'; there are depth, folders"):
        async with worker.edit_settings() as draft:
            draft.dept = 4
    assert host.written == []
