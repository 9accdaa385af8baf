"""What an author writes, as the checkers see it: nothing here is wrong.

It is checked and never run; what it promises at run time is tested elsewhere.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal, TypedDict, assert_type

import httpx
import msgspec
import pydantic

from kepm_plugin import (
    Change,
    Gap,
    Handler,
    Message,
    Plugin,
    Publisher,
    Rejected,
    Request,
    Secret,
    Settings,
    Size,
    background,
    every,
    setting,
)


@dataclass
class Finding:
    path: str
    mode: int


class Question(msgspec.Struct):
    user: str
    program: str


class Decision(msgspec.Struct):
    allowed: bool


class ScanRequest(TypedDict):
    folder: str


class ScanReport(pydantic.BaseModel):
    findings: list[str]


async def changes_of(folder: str) -> AsyncGenerator[set[str]]:
    yield {f"{folder}/90-cloud"}


class Proxy(msgspec.Struct):
    host: str
    port: int = 8080


class LimitSettings(Settings, nested=True):
    size: Size = setting(default=Size("10MB"), le="1GiB", aliases=("max_size",))
    wait: timedelta = setting(default=timedelta(seconds=5), ge="1s", le=timedelta(minutes=1))
    share: Decimal = setting(default=Decimal("0.5"), gt=0, lt="1")
    since: date | None = setting(default=None, ge=date(2026, 1, 1))


class WorkerSettings(Settings):
    root: str = setting(default="/etc", key="scan.root", description="Folder that a scan starts from")
    depth: int = setting(default=3, ge=1, le=10)
    token: str = setting(secret=True)  # no default: required
    mode: Literal["fast", "thorough"] = "fast"
    key: Secret = Secret("")
    hosts: frozenset[str] = frozenset()
    proxy: Proxy | None = None
    limits: LimitSettings = LimitSettings()
    more: LimitSettings = setting(default=LimitSettings(size=Size(1)), key="more.limits")


class MyWorker(Plugin):
    """Receives commands and publishes responses over MQTT."""

    id = "MyWorker"
    version = "1.0.0"
    settings: WorkerSettings
    modules = (".handlers",)

    findings = Publisher[Finding]("Findings/{severity}", qos=1)
    notes = Publisher[str]("Notes")
    evaluate = Request[Question, Decision](
        "/KeeperPolicy/Commands/evaluate", response="/KeeperPolicy/Responses/evaluate", timeout=5
    )

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        async with httpx.AsyncClient() as self.http:
            yield

    async def on_settings_changed(self, change: Change[WorkerSettings]) -> None:
        assert_type(change.new, WorkerSettings)
        assert_type(change.names, frozenset[str])

    async def on_reconnect(self, gap: Gap) -> None:
        assert_type(gap.seconds, float)
        assert_type(gap.session_present, bool)

    @every(minutes=5)
    async def sweep(self) -> None: ...

    @every(setting="depth")
    async def look(self) -> None: ...

    @background(restart=True)
    async def watch(self) -> None:
        async for changed in changes_of("/etc/sudoers.d"):
            for path in changed:
                await self.findings.publish(Finding(path, 0o644), severity="low")


@MyWorker.command("scan")
class Scan(Handler[MyWorker]):
    """Scan one folder."""

    concurrency = 2
    timeout = 30.0

    async def handle(self, message: Message[ScanRequest]) -> ScanReport:
        assert_type(message, Message[ScanRequest])
        assert_type(message.payload, ScanRequest)
        assert_type(message.payload["folder"], str)
        assert_type(message.correlation_id, str | None)
        assert_type(message.delivery, int)
        assert_type(self.plugin, MyWorker)
        assert_type(self.plugin.settings, WorkerSettings)
        assert_type(self.plugin.settings.depth, int)
        assert_type(self.plugin.settings.token, str)
        assert_type(self.plugin.settings.mode, Literal["fast", "thorough"])
        assert_type(self.plugin.settings.key.reveal(), str)
        assert_type(self.plugin.settings.hosts, frozenset[str])
        assert_type(self.plugin.settings.proxy, Proxy | None)
        assert_type(self.plugin.settings.limits.size, Size)
        assert_type(self.plugin.settings.more.wait, timedelta)
        assert_type(self.plugin.settings.more.since, date | None)
        assert_type(self.plugin.settings.limits.size * 2, int)
        assert_type(self.plugin.http, httpx.AsyncClient)
        if not message.payload["folder"]:
            raise Rejected("name a folder")
        await self.plugin.findings.publish(Finding("/etc/shadow", 0o666), severity="high")
        await self.plugin.findings.publish(Finding("/etc", 0o777), severity="low", wait="acknowledged", timeout=5)
        self.plugin.findings.publish_soon(Finding("/etc", 0o777), severity="low", retain=True)
        await self.plugin.notes.publish("scanned")
        decision = await self.plugin.evaluate(Question("root", "/bin/sh"))
        assert_type(decision, Decision)
        return ScanReport(findings=["/etc/shadow"])


@MyWorker.topic("Events/{host}")
class HostEvent(Handler[MyWorker]):
    order_by = "host"
    retained = "skip"

    async def handle(self, message: Message[dict[str, object]]) -> None:
        assert_type(message.payload, dict[str, object])
        assert_type(message.params["host"], str)
        assert_type(message.topic, str)
        assert_type(message.properties.get("trace"), str | None)


@MyWorker.command("hash")
class Hash(Handler[MyWorker]):
    def handle(self, message: Message[bytes]) -> str:
        assert_type(message.payload, bytes)
        return message.payload.hex()


@MyWorker.topic("")
class Primary(Handler[MyWorker]):
    def __init__(self, plugin: MyWorker) -> None:
        super().__init__(plugin)
        self.seen = 0

    async def handle(self, message: Message[str]) -> None:
        self.seen += 1
        async with self.plugin.edit_settings() as draft:
            draft.depth = 5
            draft.limits.wait = timedelta(seconds=2)
        await self.plugin.revert_settings()
        assert_type(await self.plugin.agent_settings(), dict[str, str])
        assert_type(await self.plugin.agent_setting("log.file.path"), str)
        await self.plugin.publish("Notes", {"any": ["JSON"]}, wait="acknowledged")
        async with self.plugin.subscribe("Events/+") as messages:
            async for one in messages:
                assert_type(one, Message[bytes])


# The very class comes back, so that tests and other modules can use it.
assert_type(Scan, type[Scan])
assert_type(Hash, type[Hash])
assert_type(Primary, type[Primary])
assert_type(MyWorker.topic("again")(HostEvent), type[HostEvent])
assert_type(MyWorker.command("again")(Scan), type[Scan])
assert_type(MyWorker.findings, Publisher[Finding])
assert_type(MyWorker.evaluate, Request[Question, Decision])


async def check_methods(plugin: MyWorker) -> None:
    """The decorators of methods return the very method."""
    assert_type(await plugin.sweep(), None)
    assert_type(await plugin.watch(), None)
    async with plugin.lifespan() as opened:
        assert_type(opened, None)


class Base(Plugin, abstract=True):
    """Shares a handler between plugins."""

    greeting = "hello"


@Base.command("greet")
class Greet(Handler[Base]):
    async def handle(self, message: Message[None]) -> str:
        assert_type(message.payload, None)
        return self.plugin.greeting


class Derived(Base):
    id = "Derived"


@Derived.command("more")
class More(Greet):
    """A handler of the base fits the derived plugin, and inherits `handle`."""


assert_type(More, type[More])

if __name__ == "__main__":
    MyWorker.main()
