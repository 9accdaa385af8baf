"""The class statement of a plugin: what it may say, and what it is told when it says something else."""

import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import new_class
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kepm_plugin import Change, Gap, Plugin, Publisher, Settings, setting
from kepm_plugin.errors import PluginDefinitionError

Define = Callable[..., type[Any]]


class WorkerSettings(Settings):
    depth: int = 3


# --- identity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin_id", ["MyWorker", "a", "7", "my-worker", "my.worker.v2", "x" * 64, "Loggers"])
def test_an_id_of_letters_digits_dots_and_dashes_is_taken(plugin: Define, plugin_id: str) -> None:
    assert plugin(id=plugin_id).declarations().publish == ("KeeperLogger", f"{plugin_id}/Link", f"{plugin_id}/Status")


@pytest.mark.parametrize(
    ("plugin_id", "better"),
    [
        ("My_Worker", "My-Worker"),
        ("My/Worker", "My-Worker"),
        ("My+Worker", "My-Worker"),
        ("Worker#", "Worker"),
        ("My Worker", "My-Worker"),
        (" MyWorker ", "MyWorker"),
        ("-worker-", "worker"),
        (".hidden", "hidden"),
        ("café", "caf"),
        ("ワーカー", "MyPlugin"),
        ("Keeper Logger", "Keeper-Logger"),
        ("KeeperLogger ", "MyPlugin"),
        ("_nul_", "MyPlugin"),
        ("x" * 65, "x" * 64),
        ("x" * 63 + "_y", "x" * 63),
        ("a\n", "a"),
        (7, "7"),
    ],
)
def test_another_id_is_refused_with_one_that_would_do(plugin: Define, plugin_id: object, better: str) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        plugin(id=plugin_id)
    assert str(caught.value) == (
        f"Worker.id is {plugin_id!r}; use 1 to 64 letters, digits, '-' and '.', without '_', '/', '+', '#' or spaces, "
        f"as in {better!r}"
    )


@pytest.mark.parametrize(
    "plugin_id",
    ["KeeperLogger", "keeperlogger", "KEEPERPOLICY", "Logger", "KeeperPrivilegeManager", "revert-all", "Revert-All"],
)
def test_an_id_of_the_agent_is_refused_in_any_case(plugin: Define, plugin_id: str) -> None:
    with pytest.raises(PluginDefinitionError, match=r"Worker\.id is '.*', which the agent uses itself; choose another"):
        plugin(id=plugin_id)


@pytest.mark.parametrize("plugin_id", ["con", "NUL", "Aux", "com1", "LPT9", "nul.v2"])
def test_a_name_of_a_windows_device_is_refused(plugin: Define, plugin_id: str) -> None:
    with pytest.raises(PluginDefinitionError, match="which Windows reserves as a file name; choose another id"):
        plugin(id=plugin_id)


@pytest.mark.parametrize("plugin_id", ["", None])
def test_a_plugin_without_id_is_told_both_ways_out(plugin_id: object) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        new_class("My_Worker", (Plugin,), {}, lambda body: body.update(id=plugin_id))
    assert str(caught.value) == (
        "My_Worker.id is missing: set id = 'My-Worker', or declare 'class My_Worker(Plugin, abstract=True)' if it "
        "only shares code"
    )


@examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=70))
def test_the_id_that_is_proposed_is_taken(plugin_id: str) -> None:
    try:
        new_class("Worker", (Plugin,), {}, lambda body: body.update(id=plugin_id))
    except PluginDefinitionError as exc:
        proposed = re.search(r"as in '(.*)'$|set id = '(.*)', or", str(exc))
        if proposed:
            better = proposed[1] or proposed[2]
            new_class("Worker", (Plugin,), {}, lambda body: body.update(id=better))


# --- attributes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("version", "1.0", "give a semantic version such as '1.0.0'"),
        ("version", 1.0, "Worker.version is 1.0; give a semantic version such as '1.0.0'"),
        ("version", "v1.0.0", "give a semantic version"),
        ("version", "", "give a semantic version"),
        ("version", "1.0.0\n", "give a semantic version"),
        ("name", 3, "Worker.name is 3; give a text"),
        ("execution_context", "service", "give one of Service, User, Interactive"),
        ("startup_priority", -1, "Worker.startup_priority is -1; give a whole number from 0"),
        ("startup_priority", 1.5, "give a whole number from 0"),
        ("startup_priority", True, "give a whole number from 0"),
        ("qos", 3, "Worker.qos is 3; give 0, 1 or 2"),
        ("qos", "1", "give 0, 1 or 2"),
        ("qos", True, "give 0, 1 or 2"),
        ("heartbeat", 0, "Worker.heartbeat is 0; give seconds above 0, or None for no heartbeat"),
        ("heartbeat", -5, "seconds above 0"),
        ("heartbeat", False, "None for no heartbeat"),
        ("heartbeat", float("inf"), "seconds above 0"),
        ("heartbeat", float("nan"), "seconds above 0"),
        ("heartbeat", "30", "seconds above 0"),
        ("link_budget", 0, "Worker.link_budget is 0; give seconds above 0"),
        ("drain", None, "Worker.drain is None; give seconds above 0"),
        ("settings_interval", -1, "Worker.settings_interval is -1; give seconds above 0"),
        ("platforms", "Linux", "Worker.platforms is one text, 'Linux'; write platforms = ('Linux',)"),
        ("platforms", (), "give a tuple of 'Windows', 'Linux', 'macOS'"),
        ("platforms", ("linux",), "Worker.platforms is ('linux',); give a tuple of 'Windows', 'Linux', 'macOS'"),
        ("platforms", None, "Worker.platforms is None; give a tuple of texts"),
        ("platforms", [["Linux"]], "give a tuple of texts"),
        ("auto_start", "yes", "Worker.auto_start is 'yes'; give True or False"),
        ("requires_monitoring", 1, "give True or False"),
        ("auto_restart", None, "give True or False"),
        ("journal", 0, "give True or False"),
        ("outbox", "database", "Worker.outbox is 'database'; give 'memory' or 'disk'"),
        ("outbox", None, "give 'memory' or 'disk'"),
        ("clean_session", "False", "give True or False"),
        ("echo", None, "Worker.echo is None; give True or False"),
    ],
)
def test_an_attribute_out_of_range_is_refused(plugin: Define, attribute: str, value: object, said: str) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        plugin(**{attribute: value})
    assert f"Worker.{attribute} is " in str(caught.value)
    assert said in str(caught.value)


def test_attributes_in_range_are_taken(plugin: Define) -> None:
    plugin(
        version="2.0.0-rc.1+build.7",
        name="My Worker",
        execution_context="User",
        startup_priority=0,
        qos=2,
        outbox="disk",
        heartbeat=None,
        link_budget=0.5,
        platforms=["Linux", "macOS"],
        auto_start=False,
        echo=False,
    ).declarations()


def test_a_plugin_that_may_not_write_has_no_outbox_on_disk(plugin: Define) -> None:
    with pytest.raises(
        PluginDefinitionError, match=r"Worker\.outbox is 'disk', and journal = False .* leave one of them"
    ):
        plugin(journal=False, outbox="disk")
    plugin(journal=False, outbox="memory").declarations()


@pytest.mark.parametrize(
    ("attribute", "value", "near"),
    [
        ("platform", ("Linux",), "platforms"),
        ("heart_beat", 5, "heartbeat"),
        ("autostart", False, "auto_start"),
        ("startup_prioritty", 5, "startup_priority"),
        ("require_monitoring", False, "requires_monitoring"),
        ("clean_sessions", False, "clean_session"),
        ("module", (".x",), "modules"),
    ],
)
def test_a_misspelt_attribute_is_not_passed_over(plugin: Define, attribute: str, value: object, near: str) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        plugin(**{attribute: value})
    assert str(caught.value) == (
        f"Worker.{attribute} is read by nobody, but looks like {near!r}; write that if it is meant, else choose "
        "another name"
    )


@pytest.mark.parametrize("name", ["on_setting_changed", "on_settings_change", "on_reconnected", "life_span"])
def test_a_misspelt_hook_is_not_passed_over(plugin: Define, name: str) -> None:
    async def method(self: Any) -> None: ...

    with pytest.raises(PluginDefinitionError, match=f"{name} is read by nobody, but looks like '"):
        plugin(**{name: method})


def test_names_of_one_s_own_are_free(plugin: Define) -> None:
    async def reconnect(self: Any) -> None: ...

    def limits(self: Any) -> None: ...

    plugin(
        known=(), _platform="x", reconnect=reconnect, limits=limits, heartbeats=Publisher[str]("Heartbeats"), ids=()
    ).declarations()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("host", "localhost", "choose another name"),
        ("topic", "MyWorker", "choose another name"),
        ("command", Publisher[str]("x"), "choose another name"),
        ("publish", len, "choose another name"),
        ("declarations", (), "choose another name"),
        ("main", None, "choose another name"),
        ("description", "Scans.", "the description is the docstring of the class"),
        ("settings", WorkerSettings, "settings come from the agent: annotate their class, 'settings: WorkerSettings'"),
        (
            "settings",
            WorkerSettings(),
            "settings come from the agent: annotate their class, 'settings: WorkerSettings'",
        ),
    ],
)
def test_a_name_of_the_framework_is_not_hidden(plugin: Define, name: str, value: object, remedy: str) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        plugin(**{name: value})
    assert str(caught.value) == f"Worker.{name} hides what the framework has there; {remedy}"


def test_an_attribute_that_is_only_annotated_does_not_hide_the_host(plugin: Define) -> None:
    with pytest.raises(PluginDefinitionError, match="host hides what the framework has there; choose another name"):
        plugin(__annotations__={"host": str})


def test_an_abstract_class_is_checked_for_names_too() -> None:
    with pytest.raises(PluginDefinitionError, match="looks like 'platforms'"):
        new_class("Base", (Plugin,), {"abstract": True}, lambda body: body.update(platform=("Linux",)))


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_a_lifespan_without_its_decorator_is_refused(plugin: Define) -> None:
    async def generator(self: Any) -> AsyncGenerator[None]:
        yield

    async def coroutine(self: Any) -> None: ...

    def plain(self: Any) -> None: ...

    def sync_generator(self: Any) -> Generator[None]:
        yield

    async def with_argument(self: Any, more: str) -> AsyncGenerator[None]:
        yield

    without_yield: Any = coroutine
    wrong = (generator, coroutine, plain, sync_generator, contextmanager(sync_generator), None)
    for lifespan in (*wrong, asynccontextmanager(without_yield), asynccontextmanager(with_argument)):
        with pytest.raises(PluginDefinitionError) as caught:
            plugin(lifespan=lifespan)
        assert str(caught.value) == (
            "Worker.lifespan is no async context manager; write '@asynccontextmanager' above 'async def lifespan(self)"
            "', and one 'yield' in it"
        )
    plugin(lifespan=asynccontextmanager(generator))


def test_a_lifespan_may_return_what_another_function_makes(plugin: Define) -> None:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[None]:
        yield

    def lifespan(self: Any) -> AbstractAsyncContextManager[None]:
        return opened()

    plugin(lifespan=lifespan)


@pytest.mark.parametrize("name", ["on_settings_changed", "on_reconnect"])
def test_a_hook_that_does_not_await_is_refused(plugin: Define, name: str) -> None:
    with pytest.raises(PluginDefinitionError, match=f"Worker.{name} must be 'async def {name}"):
        plugin(**{name: lambda self, change: None})  # pyright: ignore[reportUnknownLambdaType]


def test_a_hook_takes_what_it_is_told(plugin: Define) -> None:
    async def nothing(self: Any) -> None: ...

    async def more(self: Any, one: Any, other: Any) -> None: ...

    for hook in (nothing, more):
        for name, argument in (("on_settings_changed", "change"), ("on_reconnect", "gap")):
            with pytest.raises(PluginDefinitionError) as caught:
                plugin(**{name: hook})
            assert str(caught.value) == f"Worker.{name} must be 'async def {name}(self, {argument})'"


def test_hooks_can_be_overridden(plugin: Define) -> None:
    async def on_settings_changed(self: Any, change: Change[Any]) -> None: ...

    async def on_reconnect(self: Any, gap: Gap) -> None: ...

    plugin(on_settings_changed=on_settings_changed, on_reconnect=on_reconnect)


def test_a_plugin_is_made_without_arguments(plugin: Define) -> None:
    def with_one(self: Any, folder: str) -> None: ...

    def with_default(self: Any, folder: str = "/etc") -> None: ...

    with pytest.raises(PluginDefinitionError) as caught:
        plugin(__init__=with_one)
    assert str(caught.value) == (
        "Worker.__init__ needs arguments (missing a required argument: 'folder'), and a plugin is made without any; "
        "open in 'lifespan' what it needs, and read 'self.settings' there"
    )
    plugin(__init__=with_default)


def test_so_is_one_with_a_constructor_or_a_metaclass_of_its_own(plugin: Define) -> None:
    class Called(type):
        def __call__(cls, folder: str) -> Any: ...

    def with_one(cls: Any, folder: str) -> Any: ...

    with pytest.raises(PluginDefinitionError, match="missing a required argument: 'folder'"):
        plugin(__new__=with_one)
    with pytest.raises(PluginDefinitionError, match="missing a required argument: 'folder'"):
        new_class("Worker", (Plugin,), {"metaclass": Called}, lambda body: body.update(id="Worker"))


# --- what the declarations say ----------------------------------------------------------------------------------------


def test_the_description_is_the_first_paragraph_on_one_line(plugin: Define) -> None:
    text = """Scans folders,
        and reports.

        Not this.
        """
    assert plugin(__doc__=text).description() == "Scans folders, and reports."
    assert plugin().description() == ""


def test_settings_are_those_of_the_nearest_annotation(plugin: Define) -> None:
    class Narrower(WorkerSettings):
        more: bool = setting(default=True)

    base = plugin(__annotations__={"settings": WorkerSettings})
    assert base.declarations().settings_type is WorkerSettings
    assert plugin(base).declarations().settings_type is WorkerSettings
    assert plugin(base, __annotations__={"settings": Narrower}).declarations().settings_type is Narrower
    assert plugin().declarations().settings_type is Settings


@pytest.mark.parametrize("annotation", [dict, int, WorkerSettings | None, "dict[str, str]"])
def test_settings_of_another_kind_are_refused(plugin: Define, annotation: object) -> None:
    worker = plugin(__annotations__={"settings": annotation})
    with pytest.raises(
        PluginDefinitionError, match=r"Worker\.settings is annotated as .*; make that a subclass of Set"
    ):
        worker.declarations()


def test_settings_under_another_name_are_refused(plugin: Define) -> None:
    worker = plugin(__annotations__={"setting": WorkerSettings})
    with pytest.raises(PluginDefinitionError) as caught:
        worker.declarations()
    assert str(caught.value) == (
        "Worker.setting is annotated with settings, which are read from 'settings' alone; write 'settings: "
        "WorkerSettings'"
    )
    plugin(__annotations__={"settings": WorkerSettings, "before": WorkerSettings}).declarations()


def test_a_publisher_that_is_only_annotated_is_refused(plugin: Define) -> None:
    worker = plugin(__annotations__={"alarms": Publisher[str]})
    with pytest.raises(PluginDefinitionError) as caught:
        worker.declarations()
    assert str(caught.value) == (
        "Worker.alarms is only annotated, so there is no Publisher; write 'alarms = Publisher[str](\"…\")' with its "
        "topic"
    )
    plugin(alarms=Publisher[str]("Alarms"), __annotations__={"alarms": Publisher[str]}).declarations()
    with pytest.raises(PluginDefinitionError, match="there is no Publisher"):
        plugin(__annotations__={"alarms": Publisher}).declarations()


def test_annotations_of_one_s_own_are_free(plugin: Define) -> None:
    plugin(__annotations__={"client": "OnlyForTheCheckers", "count": int, "names": list[str]}).declarations()


def test_an_abstract_plugin_does_not_run() -> None:
    class Base(Plugin, abstract=True): ...

    for kind in (Base, Plugin):
        with pytest.raises(PluginDefinitionError) as caught:
            kind.declarations()
        assert str(caught.value) == f"{kind.__name__} is abstract; run a class that inherits from it and has an id"
