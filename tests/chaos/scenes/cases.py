"""The faults of the table: how each is inflicted, and when it is over."""

import resource
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from kepm_plugin.devagent.faults import (
    ApiHangs,
    ApiRefused,
    CloseBeforeConnack,
    Duplicate,
    Fault,
    HalfOpen,
    MovePort,
    Mute,
    NewCertificate,
    RefuseConnack,
    RefuseTcp,
    Reset,
    Slow,
    SuspendEngine,
    SuspendPlugin,
)
from tests.chaos.scenes.scene_plugin import Scene
from tests.chaos.scenes.setting import Engine, Setting
from tests.chaos.scenes.stage import Stage

FOREVER: Final = 600.0
"""Seconds of a fault that the scene ends itself."""

LASTING: Final = 4.0
"""Seconds that a fault lasts where nothing else is said."""

UNNOTICED: Final = 3.0
NOTICED: Final = 20.0
"""Seconds of a suspended broker: fewer than the link takes to find out, and more."""

BIG: Final = 4_096
CROWD: Final = 6_000
"""Messages that a suspended plugin is sent, and their bytes: more than all sockets on the way take."""

Inflict = Callable[[Stage], int]
"""Inflicts a fault, and returns when it was over, or in force where it is a moment, on `time.monotonic_ns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    name: str
    inflict: Inflict
    bar: float = 5.0
    """Seconds within which a fresh message must be handled."""
    embedded: bool = False
    """It is about the embedded model."""
    outbox: Literal["memory", "disk"] = "memory"
    agent_dies: bool = False
    """What the broker holds goes with the agent: owed is what the plugin has acknowledged."""
    announced: str = ""
    """What Status must say meanwhile, as a part of its reason."""
    process_dies: bool = False
    """The plugin's process ends, and what it remembers of commands with it."""


@contextmanager
def _in_force(stage: Stage, *faults: Fault) -> Generator[None]:
    numbers = [stage.agent.control.fault(fault) for fault in faults]
    try:
        yield
    finally:
        for number in numbers:
            stage.agent.control.clear_faults(number)


def moment(*faults: Fault) -> Inflict:
    """Faults that happen when they are set."""

    def inflict(stage: Stage) -> int:
        for fault in faults:
            stage.agent.control.fault(fault)
        return time.monotonic_ns()

    return inflict


def lasting(fault: Fault, *then: Fault, seconds: float = LASTING) -> Inflict:
    """A fault that lasts a while, and others that happen as it begins."""

    def inflict(stage: Stage) -> int:
        with _in_force(stage, fault):
            for other in then:
                stage.agent.control.fault(other)
            _last(seconds)
        return time.monotonic_ns()

    return inflict


def _last(seconds: float) -> None:
    threading.Event().wait(seconds)  # The time is part of the fault.


def _kill_plugin(stage: Stage) -> int:
    stage.agent.control.kill_plugin(Scene.id)
    return time.monotonic_ns()


def _kill_plugin_refused(stage: Stage) -> int:
    with _in_force(stage, ApiRefused(seconds=FOREVER, path="", plugin=Scene.id)):
        mark = stage.agent.mark()
        stage.agent.control.kill_plugin(Scene.id)
        stage.agent.until(rf"launched {Scene.id}: process", after=mark)
        _last(LASTING)
    return time.monotonic_ns()


def _kill_engine(stage: Stage) -> int:
    mark = stage.agent.mark()
    stage.agent.control.kill_engine(pause=1.0)
    stage.agent.until("accepts again", after=mark)
    return time.monotonic_ns()


def _stop_plugin(stage: Stage) -> int:
    stage.agent.control.kill_plugin(Scene.id, "SIGSTOP")
    _last(LASTING)
    stage.agent.control.kill_plugin(Scene.id, "SIGCONT")
    return time.monotonic_ns()


def _crowd(stage: Stage) -> int:
    """The plugin reads nothing, and the queue of the embedded model runs over."""
    with _in_force(stage, SuspendPlugin(plugin=Scene.id, seconds=FOREVER)):
        crowd = stage.order("waiting", rate=CROWD, count=CROWD, padding=BIG)
        stage.until(lambda: len(stage.acknowledged(crowd)) == CROWD, "the broker took the crowd")
        stage.order("mixed")
        return time.monotonic_ns()


@contextmanager
def full_disk(stage: Stage) -> Generator[None]:
    """The plugin's process can write to no file any more."""
    pid = stage.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def _full_disk(stage: Stage) -> int:
    with full_disk(stage):
        _last(LASTING)
    return time.monotonic_ns()


def full_disk_meanwhile(kind: str) -> Inflict:
    """What is in the handlers as the disk becomes full has answers, or publications, that cannot be kept."""

    def inflict(stage: Stage) -> int:
        stage.order(kind, rate=200, count=60, pause=50_000)
        _last(0.5)
        with full_disk(stage):
            _last(LASTING)
        over = time.monotonic_ns()
        stage.order("mixed")
        return over

    return inflict


def _kill_plugin_that_publishes(stage: Stage) -> int:
    relayed = stage.order("relayed", rate=200, count=100, pause=5_000)
    stage.until(lambda: len(stage.missing(relayed)) < relayed.count / 2, "half of it was published")
    over = _kill_plugin(stage)
    stage.order("mixed")
    return over


def _reset() -> Reset:
    return Reset(plugin=Scene.id)


CASES: Final[Sequence[Case]] = (
    Case(name="reset", inflict=moment(_reset())),
    Case(name="half-open", inflict=moment(HalfOpen(plugin=Scene.id)), bar=15.0),
    Case(name="broker suspended, briefly", inflict=lasting(SuspendEngine(seconds=FOREVER), seconds=UNNOTICED)),
    Case(
        name="broker suspended, half-open",
        inflict=lasting(SuspendEngine(seconds=FOREVER), seconds=NOTICED),
        bar=15.0,
    ),
    Case(
        name="mute before TLS",
        inflict=lasting(Mute(plugin=Scene.id, seconds=FOREVER), _reset(), seconds=7.0),
        bar=15.0,
    ),
    Case(name="mute, twice", inflict=moment(Mute(plugin=Scene.id, count=2), _reset()), bar=15.0),
    Case(
        name="closed before CONNACK",
        inflict=lasting(CloseBeforeConnack(plugin=Scene.id, seconds=FOREVER), _reset()),
    ),
    Case(
        name="CONNACK refuses: unavailable",
        inflict=lasting(RefuseConnack(plugin=Scene.id, seconds=FOREVER, code=3), _reset()),
    ),
    Case(
        name="CONNACK refuses: not authorized",
        inflict=lasting(RefuseConnack(plugin=Scene.id, seconds=FOREVER, code=5), _reset()),
    ),
    Case(name="TCP refused", inflict=lasting(RefuseTcp(seconds=FOREVER), _reset())),
    Case(
        name="slow",
        inflict=lasting(Slow(plugin=Scene.id, seconds=FOREVER, bytes_per_second=2_000, delay=0.5)),
    ),
    Case(name="duplicates", inflict=lasting(Duplicate(plugin=Scene.id, seconds=FOREVER, every=2))),
    Case(
        name="duplicates, same id",
        inflict=lasting(Duplicate(plugin=Scene.id, seconds=FOREVER, every=2, same_id=True)),
    ),
    Case(name="new certificate", inflict=moment(NewCertificate(), _reset())),
    Case(name="other port", inflict=moment(MovePort())),
    Case(
        name="other port, API refuses (403)",
        inflict=lasting(ApiRefused(plugin=Scene.id, seconds=FOREVER), MovePort()),
    ),
    Case(
        name="other port, API hangs",
        inflict=lasting(ApiHangs(plugin=Scene.id, seconds=FOREVER), MovePort()),
    ),
    Case(name="plugin suspended", inflict=lasting(SuspendPlugin(plugin=Scene.id, seconds=FOREVER))),
    Case(name="plugin stopped by signal", inflict=_stop_plugin),
    Case(name="engine killed", inflict=_kill_engine),
    Case(name="plugin killed", inflict=_kill_plugin, process_dies=True),
    Case(name="plugin killed, API refuses (403)", inflict=_kill_plugin_refused, process_dies=True),
    Case(name="agent killed", inflict=Stage.kill_agent, agent_dies=True, process_dies=True),
    Case(name="disk full, journal", inflict=_full_disk, announced="cannot journal"),
    Case(name="disk full, answers", inflict=full_disk_meanwhile("commands"), announced="cannot finish"),
    Case(
        name="disk full, outbox on disk",
        inflict=full_disk_meanwhile("relayed"),
        outbox="disk",
        announced="cannot",
    ),
    Case(
        name="plugin killed, outbox on disk",
        inflict=_kill_plugin_that_publishes,
        outbox="disk",
        process_dies=True,
    ),
    Case(name="embedded: oldest dropped", inflict=_crowd, embedded=True),
    Case(name="embedded: reset", inflict=moment(_reset()), embedded=True),
    Case(name="embedded: half-open", inflict=moment(HalfOpen(plugin=Scene.id)), embedded=True, bar=15.0),
)
"""In the order in which they are inflicted."""


def settings(broker: Engine) -> Sequence[Setting]:
    """Return the stages that the cases need."""
    return Setting(broker=broker), Setting(broker=broker, outbox="disk"), Setting(broker=broker, embedded=True)
