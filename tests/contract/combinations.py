"""Agents that may be the real one, and the contract file that fits each. None is known to be right."""

from dataclasses import dataclass
from typing import Final, Literal

Broker = Literal["mosquitto", "nats"]

STEPS: Final = (
    "connect",
    "read all",
    "subscribe primary",
    "command",
    "read one",
    "write text",
    "write number",
    "write fraction",
    "write boolean",
    "log",
    "status",
)
"""What the probe tries, in this order."""

WRITES: Final = tuple(step for step in STEPS if step.startswith("write "))


@dataclass(frozen=True)
class Combination:
    """One agent, as `--like` describes it.

    Attributes:
        contract: The lines of the file that fits.
        names: Items that what goes wrong without the file must name; none: nothing goes wrong.
        fails: Steps that go wrong without the file.
        denied: Steps that no file makes possible: with it they are refused at once, by the item's name.
    """

    name: str
    like: tuple[str, ...]
    contract: str = ""
    names: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    broker: Broker = "mosquitto"


_OTHER_LOG: Final = ("log_time=Timestamp", "log_level=Severity", "log_message=Text", "log_source=Plugin")
_OTHER_LOG_ITEMS: Final = """\
log_timestamp_field = "Timestamp"
log_level_field = "Severity"
log_message_field = "Text"
log_source_field = "Plugin"
"""
_NOT_TEXT: Final = WRITES[1:]
_SERIAL: Final = 'client_id = "{PluginId}_{Random}"\n'

COMBINATIONS: Final = (
    Combination("as assumed", ()),
    Combination(
        "PUT: settingValue",
        ("put_name=settingValue",),
        'put_value_field = "settingValue"',
        ("put_value_field",),
        WRITES,
    ),
    Combination(
        "PUT: Value, exactly",
        ("put_name=Value", "put_casing=exact"),
        'put_value_field = "Value"',
        ("put_value_field",),
        WRITES,
    ),
    Combination(
        "PUT: SettingValue, exactly",
        ("put_name=SettingValue", "put_casing=exact"),
        'put_value_field = "SettingValue"',
        ("put_value_field",),
        WRITES,
    ),
    Combination(
        "PUT: strings only", ("put_types=string",), 'put_value_form = "string"', ("put_value_form",), _NOT_TEXT
    ),
    Combination(
        "PUT: administrators only", ("put_tier=admin",), 'put_tier = "admin"', ("put_tier",), WRITES, denied=WRITES
    ),
    Combination("single GET: Value", ("single_name=Value",)),
    Combination("single GET: settingValue", ("single_name=settingValue",)),
    Combination("single GET: data", ("single_name=data",), 'value_fields = ["data"]', ("value_fields",), ("read one",)),
    Combination("single GET: a bare JSON string", ("single=bare",)),
    Combination("single GET: text/plain", ("single=text",)),
    Combination("GET of all: true and false as JSON spells them", ("spelling=json",)),
    Combination("GET of all: native JSON types", ("spelling=native",)),
    Combination("client id with a suffix", ("client_id={PluginId}_{Suffix}",), _SERIAL, ("client_id",), STEPS[:1]),
    Combination(
        "client id with a prefix",
        ("client_id=plugin-{PluginId}",),
        'client_id = "plugin-{PluginId}"',
        ("client_id",),
        STEPS[:1],
    ),
    Combination("log: other properties", _OTHER_LOG, _OTHER_LOG_ITEMS, (), ("log",)),
    Combination(
        "log: other levels",
        ("log_level=level", "log_levels=0,1,2,3,4,5"),
        "log_levels = [0, 1, 2, 3, 4, 5]",
        (),
        ("log",),
    ),
    Combination(
        "commands: another identity",
        ("correlation=requestId",),
        'correlation_field = "requestId"',
        ("correlation_field",),
        ("command",),
    ),
    Combination(
        "casing of .NET throughout",
        (
            *("put_name=Value", "put_casing=exact", "single_name=Value", "correlation=CorrelationId"),
            *("answer_ok=Ok", "answer_progress=Progress"),
            *("log_time=Timestamp", "log_level=Level", "log_message=Message", "log_source=Source"),
        ),
        """\
put_value_field = "Value"
correlation_field = "CorrelationId"
answer_ok_field = "Ok"
answer_result_field = "Result"
answer_error_field = "Error"
answer_progress_field = "Progress"
log_timestamp_field = "Timestamp"
log_level_field = "Level"
log_message_field = "Message"
log_source_field = "Source"
log_extra = "message"
status_state_field = "State"
status_reason_field = "Reason"
status_version_field = "Version"
status_process_field = "ProcessId"
status_time_field = "Time"
status_words = ["Starting", "Standby", "Healthy", "Unhealthy", "Unhealthy", "Stopping", "Stopped"]
""",
        ("put_value_field", "correlation_field"),
        ("command", *WRITES, "log"),
    ),
    Combination(
        "strict in everything about settings",
        (
            *("put_name=SettingValue", "put_casing=exact", "put_types=string", "single=object", "single_name=data"),
            *("spelling=native", "client_id={PluginId}_{Suffix}"),
        ),
        f'{_SERIAL}put_value_field = "SettingValue"\nput_value_form = "string"\nvalue_fields = ["data"]\n',
        ("client_id",),
        STEPS[:1],
    ),
    Combination(
        "read only, and plain",
        ("put_tier=admin", "single=text", "spelling=json", *_OTHER_LOG),
        f'put_tier = "admin"\nsubscribe_primary_topic = true\n{_OTHER_LOG_ITEMS}log_timestamp_form = "milliseconds"\n',
        ("put_tier",),
        (*WRITES, "log"),
        WRITES,
    ),
    Combination(
        "on NATS: another client id and identity",
        ("client_id=plugin_{PluginId}_{Suffix}", "correlation=requestId", "single=bare"),
        'client_id = "plugin_{PluginId}_{ProcessId}"\ncorrelation_field = "requestId"\n',
        ("client_id",),
        STEPS[:1],
        broker="nats",
    ),
    Combination(
        "on NATS: strings only, and another log",
        ("put_name=settingValue", "put_types=string", "spelling=json", "log_message=msg"),
        'put_value_field = "settingValue"\nput_value_form = "string"\nlog_message_field = "msg"\n',
        ("put_value_field", "put_value_form"),
        (*WRITES, "log"),
        broker="nats",
    ),
)
