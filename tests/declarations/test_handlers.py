"""Handler classes: what they are told where they are registered, and what is found when the plugin is checked."""

import abc
import importlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Never, TypeVar

import msgspec
import pydantic
import pytest

from kepm_plugin import Handler, Message, Plugin, Publisher, every
from kepm_plugin.errors import BadPayload, PluginDefinitionError, TopicClash
from kepm_plugin.plugin import HandlerSpec

Define = Callable[..., type[Any]]
Write = Callable[[str, str], None]

T = TypeVar("T")


class MyWorker(Plugin):
    id = "MyWorker"


class Other(Plugin):
    id = "Other"


@dataclass
class ScanRequest:
    folder: str


class Report(msgspec.Struct):
    findings: list[str]


class Correlated(msgspec.Struct):
    correlationId: str  # noqa: N815


class Unsupported:
    pass


def spec_of(plugin: type[Plugin]) -> HandlerSpec:
    (spec,) = plugin.handler_specs()
    return spec


def refusal(plugin: type[Any], kind: Any, topic: str = "Events/{host}", *, command: str | None = None) -> str:
    """Return what is said where the class is registered, or when the whole plugin is checked."""

    def declare() -> None:
        (plugin.topic(topic) if command is None else plugin.command(command))(kind)
        plugin.declarations()

    with pytest.raises(PluginDefinitionError) as caught:
        declare()
    return str(caught.value)


# --- topics -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (
            "Events/+",
            "Scan: topic 'Events/+': '+' is for filters, a declaration names its levels; write 'Events/{name}'",
        ),
        ("#", "Scan: topic '#': '#' is for filters, a declaration names its levels; write '{rest:path}'"),
        (
            "MyWorker/Events",
            "Scan: topic 'MyWorker/Events': topics are relative to the plugin's id, 'MyWorker'; write 'Ev",
        ),
        (
            "/myworker/Events",
            "Scan: topic '/myworker/Events': topics are relative to the plugin's id, 'MyWorker'; write",
        ),
        ("Events/", "Scan: topic 'Events/': level 2 is empty; write 'Events'"),
        (
            "KeeperPolicy/Responses/{name}",
            "lie below this plugin's own id; for the topic of KeeperPolicy write '/KeeperPolicy/Responses/{name}'",
        ),
    ],
)
def test_a_wrong_topic_is_corrected(plugin: Define, handler: Define, topic: str, said: str) -> None:
    assert said in refusal(plugin(), handler(), topic)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "Scan: a command is a name below 'Commands', as in command('scan')"),
        ("/scan", "Scan: a command is a name below 'Commands', as in command('scan')"),
        ("scan/+", "Scan: topic 'Commands/scan/+': '+' is for filters"),
        ("Commands/scan", "Scan: command('Commands/scan') stands below 'Commands' already; write command('scan')"),
        ("MyWorker/Commands/scan", "stands below 'Commands' already; write command('scan')"),
        ("commands", "stands below 'Commands' already; write command('scan')"),
    ],
)
def test_a_wrong_command_is_corrected(plugin: Define, handler: Define, command: str, said: str) -> None:
    assert said in refusal(plugin(), handler(), command=command)


def test_a_decorator_without_parentheses_does_not_swallow_the_class(plugin: Define, handler: Define) -> None:
    for decorator in ("topic", "command"):
        with pytest.raises(PluginDefinitionError) as caught:
            getattr(plugin(), decorator)(handler())
        example = "'Events/{host}'" if decorator == "topic" else "'scan'"
        assert str(caught.value) == (
            f"Scan: {decorator} needs its text; write '@Worker.{decorator}({example})' above the class"
        )
    with pytest.raises(PluginDefinitionError, match=r"42: topic needs its text"):
        plugin().topic(42)


def test_handlers_are_registered_on_a_class_of_one_s_own() -> None:
    for decorator in (Plugin.topic, Plugin.command):
        with pytest.raises(PluginDefinitionError) as caught:
            decorator("scan")
        assert str(caught.value) == "Plugin itself has no handlers; register them on your own subclass of it"


# --- what registers nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["command('scan')", "topic('Events')"])
def test_a_registration_without_a_class_is_refused(plugin: Define, handler: Define, written: str) -> None:
    worker = plugin()
    decorator, text = written.removesuffix("')").split("('")
    registration = getattr(worker, decorator)(text)
    heir = plugin(worker)
    for kind in (worker, heir):
        with pytest.raises(PluginDefinitionError) as caught:
            kind.declarations()
        assert str(caught.value) == (
            f"Worker.{written} stands alone and registers nothing; write '@Worker.{written}' right above a handler "
            "class"
        )
    registration(handler())
    worker.declarations()


FORGETFUL = """
    import abc
    from kepm_plugin import Handler, Message, Plugin

    class Worker(Plugin):
        id = "MyWorker"

    class Other(Plugin):
        id = "Other"

    class Shared(Handler[Worker]):
        async def handle(self, message: Message[bytes]) -> None: ...

    @Worker.topic("Used")
    class Used(Shared): ...

    class Forgotten(Handler[Worker]):
        async def handle(self, message: Message[bytes]) -> None: ...

    class Abstract(Handler[Worker], abc.ABC):
        @abc.abstractmethod
        async def handle(self, message: Message[bytes]) -> None: ...

    class Unfinished(Handler[Worker]): ...

    class OfAnother(Handler[Other]):
        async def handle(self, message: Message[bytes]) -> None: ...

    def make():
        class Local(Handler[Worker]):
            async def handle(self, message: Message[bytes]) -> None: ...
        return Local

    local = make()
"""


def test_a_handler_without_its_decorator_is_warned_of(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("forgetful", FORGETFUL)
    importlib.import_module("forgetful").Worker.declarations()
    assert [record.getMessage() for record in caplog.records] == [
        (
            "forgetful.Forgotten is a handler of Worker but takes no topic; write '@Worker.command(…)' or "
            "'@Worker.topic(…)' above it"
        )
    ]


# --- two handlers for one message -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [("Events", "Events"), ("Events/{host}", "Events/{name}"), ("Events", "events"), ("/Other/{x}", "/OTHER/{y}")],
)
def test_two_handlers_on_one_topic_are_refused(plugin: Define, handler: Define, first: str, second: str) -> None:
    worker = plugin()
    worker.topic(first)(handler(__qualname__="First"))
    with pytest.raises(TopicClash) as caught:
        worker.topic(second)(handler())
    assert str(caught.value) == (
        f"Scan and First both take {second!r} of Worker: one message has one handler; remove one of them, or give it "
        "another topic"
    )


def test_a_command_and_its_topic_clash(plugin: Define, handler: Define) -> None:
    worker = plugin()
    worker.command("{verb}")(handler(__qualname__="First"))
    assert "Scan and First both take 'Commands/{name}'" in refusal(worker, handler(), "Commands/{name}")


@pytest.mark.parametrize("topic", ["Commands/scan", "Responses/scan", "commands/scan"])
def test_one_command_is_no_topic(plugin: Define, handler: Define, topic: str) -> None:
    assert refusal(plugin(), handler(), topic) == (
        f"Scan: topic({topic!r}) would get no answer sent; write command('scan'), which takes 'Commands/scan' and "
        "answers on 'Responses/scan'"
    )


def test_all_commands_can_be_a_topic_whose_handler_answers_none(plugin: Define, handler: Define) -> None:
    for number, topic in enumerate(("Commands/{verb}", "Commands/{rest:path}", "Commands")):
        plugin(id=f"W{number}").topic(topic)(handler())


def test_a_topic_with_a_leading_slash_is_another_one(plugin: Define, handler: Define) -> None:
    worker = plugin()
    worker.topic("Events")(handler())
    worker.topic("//Events")(handler())
    assert [route.filter for route in worker.declarations().handlers] == ["MyWorker/Events", "/Events"]


def test_handlers_of_base_and_subclass_clash_in_either_order(plugin: Define, handler: Define) -> None:
    class Base(Plugin, abstract=True): ...

    before, after = plugin(Base), plugin(Base)
    after.topic("Events")(handler(__qualname__="Own"))
    Base.topic("Events")(handler(__qualname__="Inherited"))
    with pytest.raises(TopicClash, match="Scan and Inherited both take 'Events' of Worker"):
        before.topic("Events")(handler())
    with pytest.raises(TopicClash, match="Own and Inherited both take 'MyWorker/Events': one message has one handler"):
        after.declarations()


def test_an_absolute_topic_clashes_with_another_case(plugin: Define, handler: Define) -> None:
    class Base(Plugin, abstract=True): ...

    worker = plugin(Base)
    worker.topic("/Other/x")(handler(__qualname__="Own"))
    Base.topic("/other/X")(handler())
    with pytest.raises(TopicClash, match=r"both take '/?Other/x' \(compared without case with '/?other/X'\)"):
        worker.declarations()


def test_handlers_that_overlap_in_part_are_refused(plugin: Define, handler: Define) -> None:
    worker = plugin()
    worker.topic("{host}/login")(handler(__qualname__="Logins"))
    worker.topic("web1/{event}")(handler(__qualname__="Web1"))
    with pytest.raises(TopicClash) as caught:
        worker.declarations()
    assert str(caught.value) == (
        "Logins ('MyWorker/+/login') and Web1 ('MyWorker/web1/+') overlap without one covering the other, and brokers "
        "may deliver such a message twice; add a handler whose topic covers both (the most specific one still wins), "
        "or make a level literal"
    )
    worker.topic("{host}/{event}")(handler())
    assert worker.declarations().filters == ("MyWorker/+/+", "MyWorker/Link")


@pytest.mark.parametrize("topic", ["Link", "link"])
def test_the_echo_s_topic_is_the_framework_s(plugin: Define, handler: Define, topic: str) -> None:
    assert refusal(plugin(), handler(), topic) == (
        f"Scan: 'MyWorker/{topic}' is the framework's own, for the echo that proves the link; take another topic, or "
        "turn the echo off with echo = False"
    )
    without = plugin(echo=False)
    without.topic(topic)(handler())
    assert without.declarations().filters == (f"MyWorker/{topic}",)


def test_a_handler_of_everything_covers_the_echo(plugin: Define, handler: Define) -> None:
    worker = plugin()
    worker.topic("{rest:path}")(handler())
    assert worker.declarations().filters == ("MyWorker/#",)


# --- the class --------------------------------------------------------------------------------------------------------


def test_what_is_no_handler_class_is_refused(plugin: Define) -> None:
    async def scan(message: Message[str]) -> None: ...

    class Plain:
        async def handle(self, message: Message[str]) -> None: ...

    for kind in (scan, Plain, 3):
        name = getattr(kind, "__qualname__", "3")
        assert refusal(plugin(), kind) == (f"{name} is no handler: make it a class that inherits from Handler[Worker]")


@pytest.mark.parametrize(
    ("names", "near"),
    [
        (["hanlde"], "; did you mean 'hanlde' to be 'handle'?"),
        (["check", "handel"], "; did you mean 'handel' to be 'handle'?"),
        (["on_message"], "; did you mean 'on_message' to be 'handle'?"),
        ([], ""),
    ],
)
def test_a_misspelt_handle_is_found(plugin: Define, handler: Define, names: list[str], near: str) -> None:
    async def method(self: Any, message: Message[str]) -> None: ...

    kind = handler(Handler[Any], **dict.fromkeys(names, method))
    assert refusal(plugin(), kind) == (
        f"Scan.handle is missing: write 'async def handle(self, message: Message[...])'{near}"
    )


def test_a_handle_of_another_form_is_refused(plugin: Define, handler: Define) -> None:
    async def generator(self: Any, message: Message[str]) -> Any:
        yield

    def plain_generator(self: Any, message: Message[str]) -> Any:
        yield

    async def of_class(cls: Any, message: Message[str]) -> None: ...

    wrong: list[Any] = [generator, plain_generator, 3, classmethod(of_class), property(str)]
    for handle in wrong:
        assert refusal(plugin(), handler(handle=handle)) == (
            "Scan.handle must be a plain method, 'async def' or 'def', that returns its result once"
        )


def test_a_handle_takes_the_message_alone(plugin: Define, handler: Define) -> None:
    async def nothing(self: Any) -> None: ...

    async def two(self: Any, message: Message[str], context: str) -> None: ...

    async def by_name(self: Any, *, message: Message[str]) -> None: ...

    async def unbound(message: Message[str]) -> None: ...

    for handle in (nothing, two, by_name, staticmethod(unbound)):
        assert refusal(plugin(), handler(handle=handle)) == (
            "Scan.handle takes one argument, the message: write 'handle(self, message: Message[...])'"
        )

    async def with_default(self: Any, message: Message[str], verbose: bool = False) -> None: ...

    worker = plugin()
    worker.topic("x")(handler(handle=with_default))
    assert spec_of(worker).payload_type() is str


def test_a_handler_for_another_plugin_is_refused(plugin: Define) -> None:
    class Foreign(Handler[Other]):
        async def handle(self, message: Message[str]) -> None: ...

    assert refusal(MyWorker, Foreign).endswith(
        "Foreign is a Handler[Other] but is registered on MyWorker; write Handler[MyWorker], or register it on Other"
    )


def test_a_handler_of_a_base_fits_the_subclass(plugin: Define) -> None:
    class Base(Plugin, abstract=True): ...

    class Greet(Handler[Base]):
        async def handle(self, message: Message[str]) -> None: ...

    worker = plugin(Base)
    assert worker.topic("Greet")(Greet) is Greet
    assert worker.declarations().handlers[0].spec.handler is Greet


def test_a_handler_is_made_with_the_plugin_alone(plugin: Define, handler: Define) -> None:
    def nothing(self: Any) -> None: ...

    def more(self: Any, plugin: Any, folder: str) -> None: ...

    for init in (nothing, more):
        said = refusal(plugin(), handler(__init__=init))
        assert said.startswith("Scan.__init__ must take the plugin and nothing else (")
        assert said.endswith("; write 'def __init__(self, plugin)' and call 'super().__init__(plugin)'")


def test_a_handler_that_does_not_call_super_has_its_plugin_all_the_same(plugin: Define, handler: Define) -> None:
    def init(self: Any, plugin: Any) -> None:
        self.before = self.plugin

    worker, kind = plugin(), handler(__init__=init)
    worker.topic("Events")(kind)
    running = worker()
    assert kind(running).plugin is kind(running).before is running


def test_an_abstract_handler_is_refused(plugin: Define) -> None:
    class Base(Handler[Any], abc.ABC):
        @abc.abstractmethod
        def work(self) -> None: ...

        async def handle(self, message: Message[str]) -> None: ...

    assert refusal(plugin(), Base).endswith("Base is abstract: it lacks work; write what is missing")


@pytest.mark.parametrize("name", ["defer", "progress"])
def test_what_a_message_does_is_refused_in_a_handler(plugin: Define, handler: Define, name: str) -> None:
    base = handler(**{name: 3})
    for kind in (base, handler(base)):
        assert f"message.{name}(" in refusal(plugin(), kind)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("concurrency", 0, "Scan.concurrency is 0; give a number from 1 to 1000"),
        ("concurrency", 1001, "give a number from 1 to 1000"),
        ("concurrency", True, "give a number from 1 to 1000"),
        ("concurrency", "2", "give a number from 1 to 1000"),
        ("timeout", 0, "Scan.timeout is 0; give seconds above 0, or None for no limit"),
        ("timeout", -1.5, "give seconds above 0"),
        ("timeout", "30", "give seconds above 0"),
        ("timeout", float("nan"), "give seconds above 0"),
        ("timeout", True, "give seconds above 0"),
        (
            "order_by",
            "name",
            "Scan.order_by is 'name', which is no parameter of 'Events/{host}'; its parameters: 'host'",
        ),
        ("order_by", "", "which is no parameter of"),
        ("order_by", ["host"], "which is no parameter of"),
        ("retained", "ignore", "Scan.retained is 'ignore'; write 'handle' or 'skip'"),
        ("retained", True, "Scan.retained is True; write 'handle' or 'skip'"),
        ("concurency", 3, "Scan.concurency is read by nobody, but looks like 'concurrency'"),
        ("time_out", 3, "Scan.time_out is read by nobody, but looks like 'timeout'"),
        ("retries", -1, "Scan.retries is -1; give a number from 0 to 1000"),
        ("retries", True, "give a number from 0 to 1000"),
        ("dedupe", "", "Scan.dedupe is ''; give the name of a field, as in 'eventId', or None"),
        ("dedupe", 3, "give the name of a field"),
        ("overflow", "drop", "Scan.overflow is 'drop'; write 'drop_oldest', 'drop_new' or 'coalesce'"),
        ("retriess", 3, "Scan.retriess is read by nobody, but looks like 'retries'"),
        ("orderby", "host", "Scan.orderby is read by nobody, but looks like 'order_by'"),
    ],
)
def test_an_option_out_of_range_is_refused(plugin: Define, handler: Define, name: str, value: Any, said: str) -> None:
    assert said in refusal(plugin(), handler(**{name: value}))


def test_order_by_needs_a_parameter(plugin: Define, handler: Define) -> None:
    assert refusal(plugin(), handler(order_by="host"), "Events").endswith("of 'Events'; its parameters: none")


def test_options_in_range_are_taken(plugin: Define, handler: Define) -> None:
    worker = plugin()
    worker.topic("{a}")(handler(concurrency=1000, timeout=0.1, retained="skip", limits=(), _time_out=3))
    assert spec_of(worker).concurrency == 1000


def test_order_by_runs_values_in_parallel_unless_told_otherwise(plugin: Define, handler: Define) -> None:
    for options, expected in (({}, 1), ({"order_by": "a"}, 8), ({"order_by": "a", "concurrency": 2}, 2)):
        worker = plugin()
        worker.topic("Events/{a}")(handler(**options))
        assert spec_of(worker).concurrency == expected


def test_what_belongs_to_the_plugin_is_refused_in_a_handler(plugin: Define, handler: Define) -> None:
    @every(minutes=1)
    async def sweep(self: Any) -> None: ...

    assert refusal(plugin(), handler(findings=Publisher[str]("Findings"))) == (
        "Scan.findings is a Publisher, which belongs to the plugin; declare it there, and use 'self.plugin.findings'"
    )
    assert refusal(plugin(), handler(sweep=sweep)) == (
        "Scan.sweep: every() and background() are for methods of the plugin; move it there"
    )


# --- annotations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "example"),
    [
        (None, "dict[str, object]"),
        (Message, "dict[str, object]"),
        (ScanRequest, "ScanRequest"),
        (Message[str] | None, "dict[str, object]"),
        pytest.param("Message", "dict[str, object]", id="text"),
    ],
)
def test_a_handle_says_which_payload_it_takes(plugin: Define, handler: Define, annotation: Any, example: str) -> None:
    async def handle(self: Any, request: Any) -> None: ...

    handle.__annotations__ = {} if annotation is None else {"request": annotation}
    with pytest.raises(BadPayload) as caught:
        plugin().topic("x")(handler(handle=handle))
    assert str(caught.value) == (
        "Scan.handle: the parameter 'request' must be annotated as Message[...] with the payload's type, as in "
        f"'request: Message[{example}]'"
    )


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (
            Unsupported,
            "Scan.handle: Unsupported cannot be a payload type: JSON cannot carry Unsupported; use bytes, str,",
        ),
        (set[socket.socket], "JSON cannot carry socket"),
        (Callable[[], None], "JSON cannot carry Callable"),
        (bytes | str, "more than one str-like type"),
    ],
)
def test_a_payload_that_nothing_can_carry_is_refused_where_it_stands(
    plugin: Define, handler: Define, payload: Any, said: str
) -> None:
    async def handle(self: Any, message: Any) -> None: ...

    handle.__annotations__["message"] = Message[payload]
    with pytest.raises(BadPayload) as caught:
        plugin().topic("x")(handler(handle=handle))
    assert said in str(caught.value)


@pytest.mark.parametrize("payload", [bytes, str, None, dict[str, object], ScanRequest, Report, pydantic.BaseModel])
def test_a_payload_type_is_read_from_the_annotation(plugin: Define, handler: Define, payload: Any) -> None:
    def handle(self: Any, message: Any) -> None: ...

    handle.__annotations__["message"] = Message[payload]
    worker = plugin()
    worker.topic("x")(handler(handle=handle))
    assert worker.declarations().handlers[0].payload_type == (type(None) if payload is None else payload)
    assert not spec_of(worker).is_async


@pytest.mark.parametrize("payload", [int, float, bool, list[str], tuple[int, ...], list[int] | int])
def test_a_command_takes_an_object(plugin: Define, handler: Define, payload: Any) -> None:
    async def handle(self: Any, message: Any) -> None: ...

    handle.__annotations__["message"] = Message[payload]
    said = refusal(plugin(), handler(handle=handle), command="scan")
    assert said.startswith("Scan.handle: ")
    assert "cannot be the payload of a command, which is a JSON object; use a dataclass" in said
    plugin().topic("Events")(handler(handle=handle))


def test_a_command_s_type_leaves_the_correlation_id_alone(plugin: Define, handler: Define) -> None:
    async def handle(self: Any, message: Message[Correlated]) -> None: ...

    said = refusal(plugin(), handler(handle=handle), command="scan")
    assert said.startswith("Scan.handle: Correlated has the property 'correlationId'")
    worker = plugin()
    worker.topic("x")(handler(handle=handle))
    worker.declarations()


def test_a_type_variable_is_no_payload_but_a_subclass_can_name_it(plugin: Define) -> None:
    class Base(Handler[MyWorker], Generic[T]):
        async def handle(self, message: Message[T]) -> None: ...

    class Filled(Base[ScanRequest]):
        async def handle(self, message: Message[ScanRequest]) -> None: ...

    assert "T cannot be a payload type: it has a type variable; name the type itself" in refusal(MyWorker, Base)
    worker = plugin(MyWorker)
    worker.topic("filled")(Filled)
    assert spec_of(worker).payload_type() is ScanRequest


def test_an_inherited_handle_counts(plugin: Define, handler: Define) -> None:
    worker = plugin()
    worker.topic("x")(handler(handler()))
    assert worker.declarations().handlers[0].payload_type == dict[str, object]


def test_a_topic_s_handler_that_returns_something_is_sent_to_command(plugin: Define, handler: Define) -> None:
    async def handle(self: Any, message: Message[str]) -> Any: ...

    somethings: list[Any] = [Report, "Nowhere", str | None]
    for result in somethings:
        handle.__annotations__["return"] = result
        assert refusal(plugin(), handler(handle=handle)) == (
            "Scan.handle returns something, but a topic has no answer: register the class with command(...), or "
            "annotate it '-> None' and publish what it found"
        )
    nothings: list[Any] = [None, Any, object, Never]
    for result in nothings:
        handle.__annotations__["return"] = result
        plugin().topic("x")(handler(handle=handle))


def test_a_command_s_result_must_be_one_that_can_be_sent(plugin: Define, handler: Define) -> None:
    async def handle(self: Any, message: Message[str]) -> Any: ...

    handle.__annotations__["return"] = list[Unsupported]
    assert refusal(plugin(), handler(handle=handle), command="scan").startswith(
        "Scan.handle: the result cannot be sent: list["
    )
    answers: list[Any] = [None, Any, Report, Report | None, str, Never, ScanRequest, pydantic.BaseModel]
    for result in answers:
        handle.__annotations__["return"] = result
        plugin().command("scan")(handler(handle=handle))


FORWARD = """
    from __future__ import annotations

    from typing import TYPE_CHECKING

    from kepm_plugin import Handler, Message, Plugin, Publisher, Request, Settings

    if TYPE_CHECKING:
        from collections.abc import Mapping


    class Worker(Plugin):
        id = "MyWorker"
        settings: WorkerSettings
        found: Mapping[str, str]
        out = Publisher["list[Finding]"]("Out")
        ask = Request["Finding", "Finding"]("/Other/Commands/x", response="/Other/Responses/x")


    @Worker.command("scan")
    class Scan(Handler[Worker]):
        async def handle(self, message: Message[Finding]) -> Finding: ...


    class WorkerSettings(Settings):
        depth: int = 3


    class Finding(dict[str, str]): ...
"""


def test_names_from_further_down_the_module_are_found(write: Write) -> None:
    text = FORWARD.replace("class Finding(dict[str, str]): ...", "from kepm_plugin import Gap as Finding")
    write("forward_ok", text)
    made = importlib.import_module("forward_ok")
    declared = made.Worker.declarations()
    assert declared.settings_type is made.WorkerSettings
    assert declared.handlers[0].payload_type is made.Finding
    assert made.Worker.ask.answer_type is made.Finding


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "message: Message[Finding]",
            "message: Message[Mapping[str, str]]",
            "Scan.handle: an annotation names 'Mapping'",
        ),
        ("Finding: ...\n", "Mapping[str, str]: ...\n", "Scan.handle: an annotation names 'Mapping'"),
        ('"list[Finding]"', '"list[Mapping[str, str]]"', "Worker.out: an annotation names 'Mapping'"),
        ('Request["Finding", ', 'Request["Mapping[str, str]", ', "Worker.ask: an annotation names 'Mapping'"),
        ("settings: WorkerSettings", "settings: Mapping", "Worker.settings: an annotation names 'Mapping'"),
    ],
)
def test_names_for_the_checkers_only_are_refused_when_the_plugin_is_checked(
    write: Write, old: str, new: str, said: str
) -> None:
    text = FORWARD.replace("class Finding(dict[str, str]): ...", "from kepm_plugin import Gap as Finding")
    assert old in text
    write("forward_wrong", text.replace(old, new))
    made = importlib.import_module("forward_wrong")
    with pytest.raises(PluginDefinitionError) as caught:
        made.Worker.declarations()
    assert str(caught.value) == (
        f"{said}, which its module does not have at run time; define it at the top level of the module, and import it "
        "outside 'if TYPE_CHECKING'"
    )


@pytest.mark.parametrize("annotation", ["Message[str", "Message[str, str]", "Message.missing", "Message[3]"])
def test_an_annotation_that_makes_no_sense_is_told_without_a_traceback(
    plugin: Define, handler: Define, annotation: str
) -> None:
    async def handle(self: Any, message: Any) -> None: ...

    handle.__annotations__["message"] = annotation
    assert refusal(plugin(), handler(handle=handle)).startswith("Scan.handle: ")
