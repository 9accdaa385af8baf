"""Puts the local agent together, and takes it apart again: everything that it started ends with it."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
from anyio.abc import TaskStatus

from kepm_plugin.contract import (
    APPSETTINGS_HTTPS_PORT,
    APPSETTINGS_SECTION,
    DEFAULT_BROKER_HOST,
    LOGGER_TOPIC,
)
from kepm_plugin.devagent.actions import actions
from kepm_plugin.devagent.agent import DevAgent
from kepm_plugin.devagent.api_faults import FaultyApi
from kepm_plugin.devagent.certificate import self_signed, server_context
from kepm_plugin.devagent.control import controlled
from kepm_plugin.devagent.door import Door
from kepm_plugin.devagent.engine import Engine, running_engine
from kepm_plugin.devagent.engines import choose
from kepm_plugin.devagent.faulting import Faults
from kepm_plugin.devagent.gate import Gate
from kepm_plugin.devagent.guarding import Guard, guarded
from kepm_plugin.devagent.inflicting import Inflictor
from kepm_plugin.devagent.layout import (
    MQTT_PORT,
    MQTT_SECTION,
    Layout,
    check_ports,
    configured_port,
    keep_ports,
    listener,
    locked,
)
from kepm_plugin.devagent.likeness import Role
from kepm_plugin.devagent.logger import KeeperLogger
from kepm_plugin.devagent.manifests import read_folder
from kepm_plugin.devagent.options import DevOptions
from kepm_plugin.devagent.orchestrator import Orchestrator
from kepm_plugin.devagent.registry import Registry
from kepm_plugin.devagent.reload import Watch, watched
from kepm_plugin.devagent.rights import Rights
from kepm_plugin.devagent.settings_api import application, serving
from kepm_plugin.devagent.storage import Storage
from kepm_plugin.devagent.terminal import Terminal
from kepm_plugin.devagent.traffic import Crossing, Traffic


@asynccontextmanager
async def dev_agent(options: DevOptions | None = None) -> AsyncGenerator[DevAgent]:
    """Run a local agent for the time of the block.

    It is there when the API and the gate listen and the plugins that start with the agent are launched. One error of
    the block, or of the agent itself, comes out as it is, not as a group.

    Raises:
        UsageError: An option, or a file of the root, is wrong.
        AgentError: A port or the root is taken, or the engine does not start.
    """
    chosen = options or DevOptions()
    with _sole_failure(), _root(chosen) as layout, locked(layout), guarded(leave_plugins=chosen.leave_orphans) as guard:
        if chosen.root is None or chosen.temporary:
            guard.folder(layout.root)
        finish = anyio.Event()

        async def life(*, task_status: TaskStatus[DevAgent]) -> None:
            # A task of its own, shielded once it is up: whatever ends the block, also a cancellation, the parts are
            # taken down one after the other, so that plugins still reach the broker while they stop.
            with anyio.CancelScope() as scope:
                async with _assembled(chosen, layout, guard) as agent:
                    scope.shield = True
                    task_status.started(agent)
                    await finish.wait()

        async with anyio.create_task_group() as tasks:
            agent: DevAgent = await tasks.start(life, name="agent.life")
            try:
                yield agent
            finally:
                finish.set()


@contextmanager
def _root(options: DevOptions) -> Generator[Layout]:
    """Make the agent root; a temporary one is removed at the end."""
    if options.root is not None:
        layout = Layout(options.root.resolve())
        layout.create()
        yield layout
        return
    with TemporaryDirectory(prefix="kepm-agent-", ignore_cleanup_errors=True) as name:
        layout = Layout(Path(name).resolve())
        layout.create()
        yield layout


@asynccontextmanager
async def _assembled(options: DevOptions, layout: Layout, guard: Guard) -> AsyncGenerator[DevAgent]:
    terminal = Terminal(echo=options.echo, stream=options.stream, color=options.color)
    manifests, problems = read_folder(layout.plugins)
    for problem in problems:
        terminal.error(f"skipped: {problem}")
    settings = layout.appsettings
    https_port, mqtt_port = options.https_port, options.mqtt_port
    if https_port is None:
        https_port = configured_port(settings, APPSETTINGS_SECTION, APPSETTINGS_HTTPS_PORT)
    if mqtt_port is None:
        mqtt_port = configured_port(settings, MQTT_SECTION, MQTT_PORT)
    check_ports(https_port, mqtt_port)
    context = server_context(*self_signed())
    with listener(https_port, "the API") as api_socket, listener(mqtt_port, "MQTT") as mqtt_socket:
        https_port, mqtt_port = api_socket.getsockname()[1], mqtt_socket.getsockname()[1]
        keep_ports(settings, https_port, mqtt_port)
        api_base = f"https://{DEFAULT_BROKER_HOST}:{https_port}"
        registry = Registry(trust_children=options.trust_children, registration_delay=options.registration_delay)
        storage = Storage(
            layout.storage, (DEFAULT_BROKER_HOST, mqtt_port), options.logging_level, terminal, options.status
        )
        role = Role(options.like)
        logger = KeeperLogger(layout.log, terminal, role)
        rights: dict[str, Rights] = {}
        orchestrator = Orchestrator(layout, options, api_base, registry, guard, terminal)
        faults = Faults(terminal)
        async with running_engine(choose(options.broker, options.limits), guard, terminal) as engine:
            gate = _gate(options, engine, registry, rights, terminal, logger, faults, role)
            door = Door(mqtt_socket, context, registry, faults, terminal)
            inflictor = Inflictor(
                faults=faults,
                gate=gate,
                door=door,
                context=context,
                engine=engine,
                orchestrator=orchestrator,
                storage=storage,
                layout=layout,
                https_port=https_port,
            )
            agent = DevAgent(
                layout,
                api_base,
                engine=engine,
                gate=gate,
                orchestrator=orchestrator,
                storage=storage,
                logger=logger,
                rights=rights,
                inflictor=inflictor,
                role=role,
            )
            for manifest in manifests.values():
                agent.take(manifest)
            app = FaultyApi(application(agent, registry, orchestrator.states, terminal, role), faults, registry)
            async with (
                door.opened(gate.serve, lambda: engine.up),
                serving(app, api_socket, context),
                controlled(layout, actions(agent), terminal),
                orchestrator.running(),
                _watching(options, agent, terminal),
            ):
                await orchestrator.launch_all()
                _greet(agent, terminal, embedded=options.broker_model == "embedded")
                with closing(faults):  # a plugin that is suspended could not stop
                    yield agent
        terminal.agent("stopped, and all that it launched")


def _gate(
    options: DevOptions,
    engine: Engine,
    registry: Registry,
    rights: dict[str, Rights],
    terminal: Terminal,
    logger: KeeperLogger,
    faults: Faults,
    role: Role,
) -> Gate:
    def published(crossing: Crossing) -> None:
        if crossing.topic == LOGGER_TOPIC:
            logger.take(crossing)

    return Gate(
        engine,
        registry,
        rights,
        Traffic(),
        terminal,
        faults=faults,
        embedded=options.broker_model == "embedded",
        role=role,
        mqtt5=options.mqtt5,
        on_publish=published,
    )


@asynccontextmanager
async def _watching(options: DevOptions, agent: DevAgent, terminal: Terminal) -> AsyncGenerator[None]:
    """Restart plugins whose source changes, for the time of the block."""
    async with anyio.create_task_group() as tasks:
        over = anyio.Event()
        for plugin_id, paths in options.watch.items():
            watch = Watch(plugin_id, paths, options.before_reload, agent.restart)
            tasks.start_soon(watched, watch, over, terminal, name=f"reload.{plugin_id}")
        try:
            yield
        finally:
            over.set()
            tasks.cancel_scope.cancel()


def _greet(agent: DevAgent, terminal: Terminal, *, embedded: bool) -> None:
    """Write the one line that says that the agent is ready, where it is, and how to use it."""
    plugin = next(iter(agent.plugins), "PLUGIN")
    engine = f"{agent.engine}, embedded model" if embedded else agent.engine
    terminal.agent(
        f"ready: root {agent.root}, api {agent.api_base}, broker {agent.broker[0]}:{agent.broker[1]} "
        f"({engine}); try: kepm-plugin send {plugin} COMMAND --root {agent.root}",
        "green",
    )


async def serve(options: DevOptions) -> None:
    """Run a local agent until SIGINT or SIGTERM, also one that comes while it starts. For the main thread.

    Raises:
        UsageError: An option, or a file of the root, is wrong.
        AgentError: A port or the root is taken, or the engine does not start.
    """
    with _asked_to_stop() as asked, _sole_failure():
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                await asked.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(stop, name="agent.signals")
            async with dev_agent(options):
                await anyio.sleep_forever()


@contextmanager
def _asked_to_stop() -> Generator[anyio.Event]:
    """Yield an event that the first signal sets; further ones change nothing until all is stopped."""
    asked, loop = anyio.Event(), asyncio.get_running_loop()

    def ask(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(asked.set)

    before = {
        number: signal.signal(number, ask)
        for name in ("SIGINT", "SIGTERM", "SIGBREAK")
        if (number := getattr(signal, name, None)) is not None
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _sole_failure() -> Generator[None]:
    """Let the one error in a group out as itself: here is the edge, and callers expect the error that is documented."""
    try:
        yield
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            failure = failure.exceptions[0]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if failure is group:
            raise
        raise failure from failure.__cause__  # pyright: ignore[reportUnknownMemberType]
