"""Every error of the framework, as one tree split by who must act.

    KepmError
    ├── UsageError                   who typed the command: the arguments
    ├── PluginDefinitionError        the author: the code
    │   ├── BadTopic                 a topic, or a level of one, that MQTT or the namespace forbids
    │   ├── TopicClash               two declarations that the same message would reach
    │   ├── BadPayload               a value, or an annotation, that is no payload
    │   └── UndeclaredTopic          a topic that the manifest does not list
    ├── ManifestError                the packager: the plugin's JSON file
    ├── SettingsError                the operator: a setting's value
    ├── AgentError                   the machine: the agent and the way to it
    │   ├── AgentUnreachable         nothing answers
    │   ├── AgentRefused             403: this process is not one that the agent launched
    │   │   └── SettingsReadOnly     403 to a setting that was written, by an agent that lets it be read
    │   ├── UnknownPlugin            404: no such plugin, or no such setting
    │   ├── BadAgentAnswer           an answer that is not of the documented form
    │   │   └── SettingsNotStored    a setting was written with success, and is as before
    │   ├── SettingsConflict         somebody else changed the same settings
    │   ├── PeerNotTrusted           something else listens where the agent should
    │   ├── BrokerRefused            CONNACK or SUBACK says no
    │   ├── LinkLost                 the connection to the broker is gone
    │   ├── Overloaded               a bounded queue is full
    │   ├── NoAnswer                 a request was not answered in time
    │   └── Refused                  a request was answered with no
    ├── InstanceError                the operator: another copy of the plugin, or a missing launcher
    │   └── StartedAsJob             one executable is plugin and job task
    ├── StoreError                   the operator: the plugin's own files
    ├── UnknownTicket                the author: a ticket that nobody waits for (any more)
    ├── Retry                        nobody: a handler wants its message again, later
    └── Rejected                     nobody: a handler's deliberate no
        └── PayloadMismatch          a payload that does not fit its handler's type

`exit_code` on a class is what a process that ends with that error returns. 0: stopped on request; 1: crashed,
an error outside this tree; 2: usage; from 64 on each has one meaning, listed in `EXIT_CODES`.
"""

from collections.abc import Sequence
from typing import ClassVar, Final

__all__ = [
    "EXIT_CODES",
    "AgentError",
    "AgentRefused",
    "AgentUnreachable",
    "BadAgentAnswer",
    "BadPayload",
    "BadTopic",
    "BrokerRefused",
    "InstanceError",
    "KepmError",
    "LinkLost",
    "ManifestError",
    "NoAnswer",
    "Overloaded",
    "PayloadMismatch",
    "PeerNotTrusted",
    "PluginDefinitionError",
    "Refused",
    "Rejected",
    "Retry",
    "SettingsConflict",
    "SettingsError",
    "SettingsNotStored",
    "SettingsReadOnly",
    "StartedAsJob",
    "StoreError",
    "TopicClash",
    "UndeclaredTopic",
    "UnknownPlugin",
    "UnknownTicket",
    "UsageError",
]

EXIT_CODES: dict[int, str] = {
    0: "stopped on request",
    1: "crashed: an error that is none of the framework's",
    2: "usage: the command line is wrong",
    64: "the plugin's declarations are wrong",
    65: "a manifest is wrong",
    66: "a setting is missing or wrong",
    67: "the agent could not be reached within the start budget",
    68: "the agent refused this process (403) for the whole start budget",
    69: "the agent does not know this plugin (404)",
    70: "the agent answered in an unknown form",
    71: "something that is not the agent listens on the agent's port",
    72: "the link could not be restored within its budget",
    73: "stopped on request, but handlers had to be cut off at the drain deadline",
    74: "the launcher is gone and the link is lost or refused: an orphan left the work to its successor",
    75: "started as a job task: one executable is not to be plugin and job task",
    76: "the plugin's own files cannot be used",
    77: "settings were changed by somebody else at the same time",
    78: "the agent lets this plugin read its settings, but not write them",
}
"""What each exit code of a plugin's process means.

Two commands end with 1 where nothing crashed: `gen-manifest --check` where the file has drifted from the code, and
`send` where the plugin's answer is not `"ok": true`.
"""


class KepmError(Exception):
    """Root of the tree: every error that the framework raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(KepmError):
    """The command line is wrong."""

    exit_code = 2


class PluginDefinitionError(KepmError):
    """The plugin's code is wrong. The message names class, attribute and remedy."""

    exit_code = 64


class BadTopic(PluginDefinitionError):
    """A topic, or a value for one of its levels, is not allowed (MQTT 5.0, section 4.7).

    Attributes:
        topic: The topic or value as it was given.
        reason: What is wrong with it and what to write instead.
    """

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"topic {topic!r}: {reason}")
        self.topic, self.reason = topic, reason


class TopicClash(PluginDefinitionError):
    """Two declarations would be reached by the same message."""


class BadPayload(PluginDefinitionError):
    """A value cannot be a payload, or an annotation cannot be decoded to."""


class UndeclaredTopic(PluginDefinitionError):
    """Publishing or subscribing outside the manifest; the agent's broker would drop it without a word.

    Attributes:
        topic: The topic that was used.
        declared: What the manifest declares for that direction.
    """

    def __init__(self, topic: str, declared: Sequence[str], *, action: str = "publish") -> None:
        allowed = ", ".join(declared) or "nothing"
        remedy = "a Publisher or allow_publish" if action == "publish" else "a handler or allow_subscribe"
        super().__init__(
            f"cannot {action} {topic!r}: the manifest does not declare it, and the agent's broker would drop it "
            f"silently; declare it with {remedy}. Declared: {allowed}"
        )
        self.topic, self.declared = topic, tuple(declared)


class ManifestError(KepmError):
    """A manifest file is wrong, or has drifted from the code."""

    exit_code = 65


class SettingsError(KepmError):
    """A setting is missing, or its value breaks a rule. The message never holds the value of a secret.

    Attributes:
        key: The setting's key at the agent, `""` where a rule spans several.
        rule: What the value must be.
    """

    exit_code = 66

    def __init__(self, message: str, *, key: str = "", rule: str = "") -> None:
        super().__init__(message)
        self.key, self.rule = key, rule


class AgentError(KepmError):
    """The agent, or the way to it, is not in the state that the plugin needs."""

    exit_code = 67


class AgentUnreachable(AgentError):
    """Nothing answers at the agent's address; trying again later may work."""


class AgentRefused(AgentError):
    """The agent answered 403: it did not launch this process, or has not registered it yet."""

    exit_code = 68


class SettingsReadOnly(AgentRefused):
    """The agent answered 403 to a setting that was written, while it lets this process read settings.

    The vendor's pages disagree about who may write: HTTP Reference says the plugin, an older page an administrator.
    """

    exit_code = 78


class UnknownPlugin(AgentError):
    """The agent answered 404: no plugin, or no setting, of that name."""

    exit_code = 69


class BadAgentAnswer(AgentError):
    """The agent's answer has none of the forms that `contract` knows.

    Attributes:
        status: The HTTP status; None where that was a success, or the answer is not of HTTP.
    """

    exit_code = 70

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class SettingsNotStored(BadAgentAnswer):
    """The agent answered a PUT with success, but the setting is as before; it may expect another body."""


class SettingsConflict(AgentError):
    """Somebody else changed the same settings; with the newest ones it may be tried again.

    Attributes:
        keys: The agent's keys of what was changed.
    """

    exit_code = 77

    def __init__(self, message: str, *, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


class PeerNotTrusted(AgentError):
    """The other end of a connection is not on loopback, or belongs to somebody else than the agent."""

    exit_code = 71


class BrokerRefused(AgentError):
    """The broker answered CONNECT or SUBSCRIBE with a refusal.

    Attributes:
        code: The return code or reason code of CONNACK or SUBACK.
    """

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class LinkLost(AgentError):
    """The connection to the broker is gone, or could not be restored in time."""

    exit_code = 72


class Overloaded(AgentError):
    """A bounded queue is full and stayed full until the deadline."""


class NoAnswer(AgentError):
    """A request was sent, and no answer came within its timeout."""


class Refused(AgentError):
    """A request was answered with no.

    Attributes:
        reason: The answer's reason.
    """

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"request on {topic!r} was refused: {reason}")
        self.reason = reason


class InstanceError(KepmError):
    """This copy of the plugin must not, or must no longer, handle messages."""

    exit_code = 74


class StartedAsJob(InstanceError):
    """The agent started this process for a job task; a plugin would never end and hold the job up.

    Attributes:
        job: The id of the job.
    """

    exit_code = 75

    def __init__(self, job: str) -> None:
        super().__init__(
            f"this process was started as a task of the job {job!r}, but it is a plugin: register the executable as "
            "a plugin or as a job task, not as both"
        )
        self.job = job


class StoreError(KepmError):
    """A file that the plugin keeps cannot be read or written."""

    exit_code = 76


class UnknownTicket(KepmError):
    """A ticket was answered already, has expired, or is none of this plugin's."""


_LONGEST_RETRY: Final = 86_400.0
"""Seconds that a message may be put off at a time."""


class Retry(KepmError):
    """Raised by a handler: the message cannot be handled now, and should come again.

    It may be raised again and again, whatever `retries` says; `message.delivery` counts. A message that is older than
    the journal keeps any (7 days) becomes a dead letter.

    Attributes:
        after: Seconds until it comes again, 0 to 86,400.
        reason: Text for the log.
    """

    def __init__(self, reason: str = "", *, after: float) -> None:
        if not 0 <= after <= _LONGEST_RETRY:
            raise PluginDefinitionError(f"Retry(after={after!r}): give seconds from 0 to {_LONGEST_RETRY:g}")
        super().__init__(reason or f"again in {after:g} s")
        self.after, self.reason = after, reason


class Rejected(KepmError):
    """Raised by a handler: the message was understood and the answer is no.

    In a `command` handler the reason becomes the answer's `error`; in a `topic` handler the message is
    acknowledged and counted.

    Attributes:
        reason: Text for the caller; it must not hold secrets.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PayloadMismatch(Rejected):
    """A payload does not fit its handler's type: a command is answered no, another message is a dead letter."""
