# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""Wrong uses, each with the error that mypy and pyright must find; an ignore that hides nothing is an error itself.

It is checked and never run.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import assert_type

from kepm_plugin import (
    Change,
    Handler,
    Message,
    Plugin,
    Publisher,
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


@dataclass
class Question:
    user: str


@dataclass
class Decision:
    allowed: bool


class WorkerSettings(Settings):
    depth: int = setting(default=3)
    wrong: int = setting(default="three")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    token: Secret = "text"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    size: Size = 5  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    unknown: int = setting(default=3, minimum=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportUnknownVariableType]


class MyWorker(Plugin):
    id = "MyWorker"
    settings: WorkerSettings
    findings = Publisher[Finding]("Findings/{severity}")
    evaluate = Request[Question, Decision](
        "/KeeperPolicy/Commands/evaluate", response="/KeeperPolicy/Responses/evaluate"
    )
    late = Request[Question, Decision]("/KeeperPolicy/Commands/evaluate")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    number = Publisher[Finding](42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @every(minutes=5)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    def sweep(self) -> None: ...

    @every(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def tick(self) -> None: ...

    @every(minutes=5)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def with_argument(self, message: str) -> None: ...

    @background(restart=True)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def returns(self) -> int:
        return 1

    @background(restart=True)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
    async def yields(self) -> AsyncGenerator[None]:
        yield

    async def lifespan(self) -> AsyncGenerator[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        yield

    def on_settings_changed(self, change: Change[WorkerSettings]) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


class Shadowing(Plugin):
    id = 7  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    version = 1.0  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    heartbeat = "30"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    execution_context = "Servce"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    modules = 3  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    host = "localhost"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    def publish(self, topic: str) -> None: ...  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]


class Other(Plugin):
    id = "Other"


@MyWorker.command("scan")
class Scan(Handler[MyWorker]):
    async def handle(self, message: Message[Finding]) -> Decision:
        return Finding(message.payload.path)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@MyWorker.command("misspelt")  # pyright: ignore[reportArgumentType, reportUntypedClassDecorator]
class Misspelt(Handler[MyWorker]):  # type: ignore[type-var]
    async def hanlde(self, message: Message[Finding]) -> None: ...


@MyWorker.command("foreign")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
class Foreign(Handler[Other]):
    async def handle(self, message: Message[Finding]) -> None: ...


@MyWorker.command("payload")  # pyright: ignore[reportArgumentType, reportUntypedClassDecorator]
class TakesPayload(Handler[MyWorker]):  # type: ignore[type-var]
    async def handle(self, payload: Finding) -> None: ...


@MyWorker.command("two")  # pyright: ignore[reportArgumentType, reportUntypedClassDecorator]
class TakesTwo(Handler[MyWorker]):  # type: ignore[type-var]
    async def handle(self, message: Message[Finding], context: str) -> None: ...


@MyWorker.topic("made")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
class NeedsMore(Handler[MyWorker]):
    def __init__(self, plugin: MyWorker, folder: str) -> None:
        super().__init__(plugin)
        self.folder = folder

    async def handle(self, message: Message[Finding]) -> None: ...


@MyWorker.topic("none")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
class NoHandler:
    async def handle(self, message: Message[Finding]) -> None: ...


@MyWorker.topic("function")  # type: ignore[arg-type, type-var]  # pyright: ignore[reportArgumentType, reportUntypedFunctionDecorator]
async def function(message: Message[Finding]) -> None: ...


@MyWorker.topic  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
class WithoutText(Handler[MyWorker]):
    async def handle(self, message: Message[Finding]) -> None: ...


@MyWorker.topic(42)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
class Number(Handler[MyWorker]):
    async def handle(self, message: Message[Finding]) -> None: ...


@MyWorker.topic("options")
class Options(Handler[MyWorker]):
    concurrency = "2"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    timeout = "30"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    order_by = 1  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    retained = "maybe"  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    async def handle(self, message: Message[Finding]) -> None:
        print(message.payload.paht)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
        message.payload = Finding("x")  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        print(message.correlationId)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
        message.params["host"] = "x"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
        assert_type(message.payload, Question)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
        print(self.plugin.settings.dept)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
        self.plugin.settings.depth = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        print(self.plugin.undeclared)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
        await self.plugin.findings.publish(Question("x"), severity="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.plugin.findings.publish({"path": "x"}, severity="high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.plugin.findings.publish(Finding("x"), severity=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.plugin.findings.publish(Finding("x"), "high")  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]
        await self.plugin.findings.publish(Finding("x"), severity="high", wait="sent")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.plugin.findings.publish(Finding("x"), severity="high")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        await self.plugin.evaluate(Finding("x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.plugin.evaluate.publish(Question("x"))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        assert_type(await self.plugin.evaluate(Question("x")), Finding)  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
        await self.plugin.publish(Finding("x"), "Findings/high")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.plugin.publish("Findings/high", Finding("x"), qos="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await MyWorker.findings.publish(Finding("x"), severity="high")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def without_parentheses(plugin: MyWorker) -> None: ...


every(without_parentheses)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
background(without_parentheses)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def check_calls(plugin: MyWorker) -> None:
    WorkerSettings(depth="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    WorkerSettings(4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Scan(plugin).handle(Finding("x"))  # type: ignore[arg-type, unused-coroutine]  # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    assert_type(MyWorker.topic("again")(Scan), type[Options])  # type: ignore[assert-type]  # pyright: ignore[reportAssertTypeFailure]
    MyWorker.main("run")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
