"""`contractfile`: where the file is, whom to trust with it, what it may say; and that a plugin starts by it."""

import json
import os
import stat
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from kepm_plugin import Plugin
from kepm_plugin.contract import ASSUMED, ITEMS, Contract
from kepm_plugin.contractfile import CONTRACT_FILE, InForce, beside, contract_schema, find_contract, read_contract
from kepm_plugin.errors import UsageError
from kepm_plugin.runtime import RunOptions, run


def written(folder: Path, text: str | bytes, name: str = CONTRACT_FILE) -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(0o644)
    return file


def refusal(file: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_contract(file)
    assert str(caught.value).startswith(str(file))
    return str(caught.value)


# --- what it says -----------------------------------------------------------------------------------------------------

EVERY_ITEM = """
client_id = "{PluginId}_{Random}"
subscribe_primary_topic = true
put_value_field = "Value"
put_value_form = "string"
put_tier = "admin"
value_fields = ["Value", "data"]
status_hash_fields = ["Hash"]
log_timestamp_field = "a"
log_level_field = "b"
log_message_field = "c"
log_source_field = "d"
log_timestamp_form = "seconds"
log_levels = ["T", "D", "I", "W", "E", "C"]
log_extra = "message"
correlation_field = "e"
answer_ok_field = "f"
answer_result_field = "g"
answer_error_field = "h"
answer_progress_field = "i"
status_state_field = "j"
status_reason_field = "k"
status_version_field = "l"
status_process_field = "m"
status_time_field = "n"
status_words = ["1", "2", "3", "4", "5", "6", "7"]
"""


def test_every_item_can_be_replaced(tmp_path: Path) -> None:
    contract = read_contract(written(tmp_path, EVERY_ITEM))
    assert list(contract.changes()) == list(ITEMS)
    assert contract.log_levels == ("T", "D", "I", "W", "E", "C")


def test_what_is_left_out_is_as_assumed(tmp_path: Path) -> None:
    assert read_contract(written(tmp_path, "\ufeff# nothing yet\n")) == ASSUMED
    assert read_contract(written(tmp_path, 'put_tier = "admin"')) == Contract(put_tier="admin")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('put_value_feild = "v"', "there is no item 'put_value_feild'; did you mean 'put_value_field'?"),
        ("zzz = 1", "there is no item 'zzz'; there are client_id, subscribe_primary_topic, "),
        ('[contract]\nput_tier = "admin"', "there is no table [contract]; items stand at the top of the file"),
        ('settings_path = "/x"', "settings_path is documented by the vendor, and only what is assumed can be replaced"),
        ("put_value_field = 3", "put_value_field must be a property's name of 1 to 64 letters, digits"),
        ("subscribe_primary_topic = 'yes'", "subscribe_primary_topic must be true or false, not 'yes'"),
        ("put_tier = true", "put_tier must be one of 'plugin', 'admin', not true"),
        ("put_tier = {}", "put_tier must be one of 'plugin', 'admin', not {}"),
        ('client_id = "worker"', "client_id must be text with {PluginId} in it once"),
        ('value_fields = "value"', "value_fields must be a list of 1 to 8 properties' names, not 'value'"),
        (f"put_value_field = '{'x' * 500}'", "xxx…"),
        ("log_levels = [1.0, 1, 2, 3, 4, 5]", "log_levels must be a list of 6 words or whole numbers"),
        ('log_level_field = "message"', "log_message_field and log_level_field are both 'message'"),
        ("client_id = ", "is no TOML: "),
        (b"client_id = '\xff'", "is no TOML: "),
        ("a = " + "[" * 20_000, "is no TOML: "),
        (b" " * 70_000, "has more than 65536 bytes; that is no contract file"),
    ],
)
def test_what_it_may_not_say_is_named_with_file_item_and_what_is_allowed(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    complaint = refusal(written(tmp_path, text))
    assert said in complaint
    assert len(complaint) < 1_500


def test_the_schema_is_one_and_says_what_the_reader_says(tmp_path: Path) -> None:
    schema = contract_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    items: dict[str, Any] = schema["properties"]
    assert list(items) == list(ITEMS)
    assert all(len(one["description"]) > 30 for one in items.values())
    assert "KeeperLogger" in items["log_level_field"]["description"], "one docstring for several items"
    jsonschema.validate({name: one["default"] for name, one in items.items()}, schema)
    contract = read_contract(written(tmp_path, EVERY_ITEM))
    jsonschema.validate(json.loads(json.dumps(contract.changes())), schema)
    refused: list[dict[str, object]] = [{"no": 1}, {"put_tier": "root"}, {"client_id": "worker"}, {"value_fields": []}]
    for wrong in refused:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


# --- where it is ------------------------------------------------------------------------------------------------------


def test_the_first_of_option_variable_and_the_programs_folder_counts(tmp_path: Path) -> None:
    given, named = tmp_path / "given.toml", tmp_path / "named.toml"
    environ = {"KEPM_CONTRACT": str(named)}
    assert find_contract(None, {}, None) is None
    assert find_contract(None, {"KEPM_CONTRACT": ""}, tmp_path) is None
    there = written(tmp_path, "")
    assert find_contract(None, {}, tmp_path) == there
    assert find_contract(None, environ, tmp_path) == named, "also where it does not exist"
    assert find_contract(given, environ, tmp_path) == given


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / CONTRACT_FILE).symlink_to(tmp_path / "gone")
    assert "cannot be read: No such file or directory" in refusal(find_contract(None, {}, tmp_path) or tmp_path)


def test_the_programs_folder_is_that_of_the_plugin_and_never_of_an_interpreter(tmp_path: Path) -> None:
    module = ModuleType("worker")
    module.__file__ = str(tmp_path / "worker.py")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "MyWorker")
    assert beside(module, frozen=False, executable=Path("/usr/bin/python")) == tmp_path
    assert beside(ModuleType("typed"), frozen=False, executable=Path("/usr/bin/python")) is None
    assert beside(None, frozen=False, executable=Path("/usr/bin/python")) is None
    assert beside(module, frozen=True, executable=tmp_path / "link") == tmp_path / "real"


# --- whom to trust with it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "said"),
    [(0o664, "can be written by its group"), (0o646, "can be written by everybody"), (0o666, "by everybody")],
)
def test_a_file_that_others_may_write_is_not_trusted(tmp_path: Path, mode: int, said: str) -> None:
    file = written(tmp_path, "")
    file.chmod(mode)
    complaint = refusal(file)
    assert said in complaint
    assert complaint.endswith("chmod go-w it")


class System:
    """The system's calls, with other answers to who owns a file, who made a link to it, and who we are."""

    def __init__(self, patch: pytest.MonkeyPatch, *, user: int, owner: int, linked_by: int) -> None:
        self._user, self._owner, self._linked_by = user, owner, linked_by
        self._lstat = Path.lstat
        patch.setattr("kepm_plugin.contractfile._place.os", self)

        def lstat(path: Path) -> os.stat_result:
            return owned(self._lstat(path), self._linked_by)

        patch.setattr(Path, "lstat", lstat)

    def geteuid(self) -> int:
        return self._user

    def fstat(self, descriptor: int) -> os.stat_result:
        return owned(os.fstat(descriptor), self._owner)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def owned(found: os.stat_result, owner: int) -> os.stat_result:
    values = list(found)
    values[stat.ST_UID] = owner
    return os.stat_result(values)


@pytest.mark.parametrize("owner", [0, 1_000, 4_711])
@pytest.mark.parametrize("user", [0, 1_000])
def test_only_root_and_the_process_own_user_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, user: int
) -> None:
    file = written(tmp_path, "")
    with monkeypatch.context() as patch:
        System(patch, user=user, owner=owner, linked_by=0)
        if owner in (0, user):
            assert read_contract(file) == ASSUMED
        else:
            assert f"belongs to user {owner}, and this process is user {user}" in refusal(file)


def test_a_link_of_somebody_else_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who made the link has chosen the file, whosever that is."""
    file = written(tmp_path, "")
    with monkeypatch.context() as patch:
        System(patch, user=0, owner=0, linked_by=4_711)
        assert "belongs to user 4711" in refusal(file)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a file; name the contract file" in refusal(tmp_path / "pipe")
    assert "is not a file" in refusal(tmp_path)
    assert "cannot be read: No such file" in refusal(tmp_path / "nothing")


# --- a plugin that starts by it ---------------------------------------------------------------------------------------


def test_a_plugin_with_a_wrong_file_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("worker_with_contract")
    module.__file__ = str(tmp_path / "worker.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delenv("KEPM_CONTRACT", raising=False)
    kind = type("P", (Plugin,), {"id": "P", "__module__": module.__name__})
    file = written(tmp_path, "")
    file.chmod(file.stat().st_mode | stat.S_IWOTH)
    assert run(kind, RunOptions(data_dir=tmp_path, lock_dir=tmp_path)) == 2
    assert capsys.readouterr().err == (
        f"kepm-plugin: {file} can be written by everybody, and so it is not trusted; chmod go-w it\n"
    )
    assert run(kind, RunOptions(contract=tmp_path / "none.toml", data_dir=tmp_path, lock_dir=tmp_path)) == 2
    assert "none.toml cannot be read" in capsys.readouterr().err


def test_without_a_file_what_is_assumed_is_in_force(tmp_path: Path) -> None:
    assert InForce.of(None) == InForce(ASSUMED, None)
    file = written(tmp_path, 'put_tier = "admin"')
    assert InForce.of(file) == InForce(Contract(put_tier="admin"), file)
