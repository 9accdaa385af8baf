"""Methods that run without a message."""

from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from kepm_plugin import Plugin, Settings, background, every, setting
from kepm_plugin.errors import PluginDefinitionError
from kepm_plugin.plugin import Background, Every

Define = Callable[..., type[Any]]


async def method(self: Any) -> None: ...


def refusal(define: Callable[[], object]) -> str:
    with pytest.raises(PluginDefinitionError) as caught:
        define()
    return str(caught.value)


PERIOD = "give one period above 0, as in every(minutes=5) or every(setting='poll_seconds')"


@pytest.mark.parametrize(
    ("make", "period"),
    [
        (lambda: every(), 0),
        (lambda: every(seconds=0), 0),
        (lambda: every(seconds=-5), -5),
        (lambda: every(hours=float("inf")), float("inf")),
        (lambda: every(seconds=5, setting="poll"), 5),
    ],
    ids=["none", "zero", "negative", "never", "two"],
)  # fmt: skip
def test_a_tick_has_one_period(make: Callable[[], Any], period: float) -> None:
    assert refusal(lambda: make()(method)) == f"method: every() has a period of {period!r} seconds; {PERIOD}"


def test_decorators_are_called_and_take_names() -> None:
    bare: Any = every
    assert refusal(lambda: bare(method)) == f"method: every() takes its period by name; {PERIOD}"
    assert refusal(lambda: bare(5)(method)) == f"method: every() takes its period by name; {PERIOD}"
    bare = background
    assert refusal(lambda: bare(method)) == (
        "method: background() needs its parentheses; write '@background()' above the method"
    )


def test_what_is_no_async_method_is_refused() -> None:
    def plain(self: Any) -> None: ...

    async def with_argument(self: Any, message: str) -> None: ...

    async def generator(self: Any) -> AsyncGenerator[None]:
        yield

    wrong: list[Any] = [plain, with_argument, generator, staticmethod(method), 3]
    for one in wrong:
        name = getattr(one, "__name__", "tick")
        for decorate, decorator in ((every(seconds=1), "every"), (background(), "background")):
            assert refusal(partial(decorate, one)).endswith(
                f": {decorator}() is for a method 'async def {name}(self)'; write it so"
            )


def test_a_method_is_a_tick_or_a_background_task() -> None:
    @every(seconds=1)
    async def both(self: Any) -> None: ...

    assert refusal(lambda: background()(both)).endswith("both: every() and background() exclude each other; remove one")


def test_the_very_method_comes_back() -> None:
    async def tick(self: Any) -> None: ...

    assert every(seconds=1)(tick) is tick


class WorkerSettings(Settings):
    poll: float = setting(default=60.0, gt=0)
    tries: int = 3
    root: str = "/etc"
    flag: bool = True


def test_the_nearest_definition_of_a_method_counts() -> None:
    class Base(Plugin, abstract=True):
        settings: WorkerSettings

        @every(minutes=1, seconds=30)
        async def sweep(self) -> None: ...

        @every(hours=1)
        async def dropped(self) -> None: ...

        @background()
        async def watch(self) -> None: ...

    class Worker(Base):
        id = "MyWorker"

        async def dropped(self) -> None: ...

        @background(restart=True)
        async def watch(self) -> None: ...

        @every(setting="poll")
        async def poll(self) -> None: ...

        @every(setting="tries")
        async def count(self) -> None: ...

    assert Worker.declarations().schedule == (
        Every("sweep", 90, None),
        Background("watch", restart=True),
        Every("poll", None, "poll"),
        Every("count", None, "tries"),
    )


@pytest.mark.parametrize("name", ["missing", "root", "flag"])
def test_the_setting_of_a_period_is_a_number(plugin: Define, name: str) -> None:
    async def sweep(self: Any) -> None: ...

    worker = plugin(__annotations__={"settings": WorkerSettings}, sweep=every(setting=name)(sweep))
    assert refusal(worker.declarations) == (
        f"Worker.sweep: every(setting={name!r}) names no number or duration in WorkerSettings; declare it there, as "
        f"in '{name}: float = setting(default=60.0, gt=0)'"
    )


@pytest.mark.parametrize(
    ("kind", "default", "shown"),
    [(float, 0, "0.0"), (float, -1.5, "-1.5"), (timedelta, timedelta(0), "datetime.timedelta(0)")],
)
def test_the_default_of_a_period_is_one(plugin: Define, kind: type, default: object, shown: str) -> None:
    async def sweep(self: Any) -> None: ...

    own: Any = type("Own", (Settings,), {"poll": default, "__annotations__": {"poll": kind}})
    worker = plugin(__annotations__={"settings": own}, sweep=every(setting="poll")(sweep))
    assert refusal(worker.declarations) == (
        f"Worker.sweep: Own.poll has the default {shown}, which is no period; give seconds above 0"
    )
