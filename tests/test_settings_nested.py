"""Classes of settings within others: dotted keys, rules of their own, and drafts."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kepm_plugin import Handler, Message, Plugin, Secret, Settings, Size, setting
from kepm_plugin.errors import PluginDefinitionError, SettingsError
from kepm_plugin.plugin._draft import Draft
from kepm_plugin.settings import (
    MISSING,
    changed_keys,
    difference,
    fields_of,
    flat,
    leaves_of,
    manifest_defaults,
    read_key,
    secret_keys,
    secrets_of,
    unknown_keys,
)
from kepm_plugin.testing import hosted

PATIENT = examples(deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Login(Settings, nested=True):
    name: str = "nobody"
    password: Secret = Secret("hunter2")


class Scan(Settings):
    root: str = setting(default="/etc", description="Where a scan starts")
    depth: int = setting(default=3, ge=1, le=10, key="levels")
    pause: timedelta = timedelta(seconds=5)
    folders: list[str] = setting(default=[])
    login: Login = Login()

    def validate(self) -> None:
        if self.root == "/" and self.depth > 5:
            raise SettingsError(f"too deep, {self.login.password.reveal()}", key="levels", rule="5 at most below /")
        if self.depth == 7:
            raise ValueError("7 brings bad luck")


class Outer(Settings):
    title: str = "a"
    scan: Scan = Scan(depth=4)
    again: Scan = setting(default=Scan(root="/var"), key="second.scan")
    limit: Size = Size("1MiB")


class Strict(Settings):
    token: Secret
    depth: int = 1


class Needs(Settings):
    strict: Strict


# --- what is declared -------------------------------------------------------------------------------------------------


def test_leaves_have_dotted_names_and_keys_in_declared_order() -> None:
    assert [item.name for item in fields_of(Outer)] == ["title", "scan", "again", "limit"]
    inner = ["root", "levels", "pause", "folders", "login.name", "login.password"]
    assert [leaf.key for leaf in leaves_of(Outer)] == [
        "title",
        *(f"scan.{key}" for key in inner),
        *(f"second.scan.{key}" for key in inner),
        "limit",
    ]
    found = {leaf.key: leaf for leaf in leaves_of(Outer)}
    depth = found["second.scan.levels"]
    assert (depth.name, depth.default, dict(depth.constraints)) == ("again.depth", 3, {"ge": 1, "le": 10})
    assert found["scan.root"].description == "Where a scan starts"
    assert secret_keys(Outer) == {"scan.login.password", "second.scan.login.password"}


def test_defaults_are_those_of_the_class_around_it_and_stand_at_the_root_of_the_manifest() -> None:
    assert manifest_defaults(Outer) == {
        "title": "a",
        "scan.root": "/etc",
        "scan.levels": 4,
        "scan.pause": "5s",
        "scan.folders": "[]",
        "scan.login.name": "nobody",
        "second.scan.root": "/var",
        "second.scan.levels": 3,
        "second.scan.pause": "5s",
        "second.scan.folders": "[]",
        "second.scan.login.name": "nobody",
        "limit": "1MiB",
    }


def test_a_nested_class_without_default_has_its_own_where_it_can() -> None:
    class Mild(Settings):
        scan: Scan
        named: Scan = setting(key="other")

    untyped: Any = Mild
    assert Mild.parse({}) == untyped() == Mild(scan=Scan(), named=Scan())
    (strict,) = fields_of(Needs)
    assert strict.default is MISSING
    assert [leaf.required for leaf in leaves_of(Needs)] == [True, False]


def test_a_nested_class_whose_defaults_break_its_rule_has_to_be_set() -> None:
    class Broken(Settings):
        low: int = 1

        def validate(self) -> None:
            if self.low == 1:
                raise ValueError("not 1")

    class Around(Settings):
        broken: Broken

    with pytest.raises(SettingsError, match="Around: 'broken': Broken: not 1"):
        Around.parse({})
    assert Around.parse({"broken.low": "2"}).broken.low == 2


def declare(body: dict[str, object], **annotations: object) -> type[Settings]:
    return type("Sample", (Settings,), {"__annotations__": annotations, **body})


@pytest.mark.parametrize(
    ("body", "annotations", "expected"),
    [
        ({"scan": setting(secret=True)}, {"scan": Scan}, "Sample.scan is a class of settings, which is no secret"),
        ({"scan": setting(ge=1)}, {"scan": Scan}, "Sample.scan is Scan, which takes no ge"),
        ({"scan": Login()}, {"scan": Scan}, "Sample.scan must be a Scan, and its default Login("),
        ({"scan": Scan()}, {}, "Sample.scan has no annotation, so it is no setting; write `scan: Scan"),
        (
            {"x": setting(default=1, key="SCAN.levels")},
            {"scan": Scan, "x": int},
            "key 'SCAN.levels', as scan.depth has",
        ),
        ({"scan": setting(key="kepm")}, {"scan": Scan}, "Sample.scan.root has the key 'kepm.root', which begins with"),
        ({"x": setting(default=1, key="name")}, {"x": int}, "a class that only stands in others is declared with"),
        (
            {"x": setting(default=1, key="scan.folders.0")},
            {"scan": Scan, "x": int},
            "Sample.x has the key 'scan.folders.0', which is also a part of scan.folders ('scan.folders')",
        ),
    ],
)
def test_a_wrong_declaration_is_refused(body: dict[str, object], annotations: dict[str, object], expected: str) -> None:
    with pytest.raises(PluginDefinitionError) as caught:
        declare(body, **annotations)
    assert expected in str(caught.value)


def test_a_class_that_only_stands_in_others_is_no_plugins() -> None:
    class Sample(Plugin):
        id = "Sample"
        settings: Login

    with pytest.raises(PluginDefinitionError, match=r"Sample\.settings is Login, which only stands in others; leave"):
        Sample.declarations()


# --- parsing and construction -----------------------------------------------------------------------------------------


def test_dotted_keys_are_read_in_any_casing_and_with_colons() -> None:
    found = Outer.parse({"Scan.Levels": "9", "scan:login:name": "me", "second.scan.folders.0": "x", "other": "1"})
    assert found == Outer(scan=Scan(depth=9, login=Login(name="me")), again=Scan(root="/var", folders=["x"]))
    assert unknown_keys(
        Outer, {"scan.levels": "", "SCAN:pause": "", "scan.folders.1": "", "scan.x": "", "scan": ""}
    ) == (
        "scan",
        "scan.x",
    )


@pytest.mark.parametrize(
    ("values", "key", "text"),
    [
        (
            {"scan.levels": "11"},
            "scan.levels",
            "Outer: 'scan.levels' must be a whole number, at least 1, at most 10, not '11'",
        ),
        ({"second.scan.levels": "7"}, "second.scan", "Outer: 'second.scan': Scan: 7 brings bad luck"),
        ({"scan.root": "/", "scan.levels": "6"}, "scan.levels", "Outer: 'scan': Scan: too deep, ***"),
        ({"scan.login.password": "\ud800hunter2"}, "scan.login.password", "Outer: 'scan.login.password' must be text"),
    ],
)
def test_an_error_names_the_dotted_key(values: dict[str, str], key: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Outer.parse(values)
    assert (caught.value.key, str(caught.value)) == (key, text)
    assert caught.value.__suppress_context__


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Outer.parse({"scan.levels": "x", "limit": "y", "second.scan.pause": "z"})
    assert all(f"'{key}' must be" in str(caught.value) for key in ("scan.levels", "limit", "second.scan.pause"))
    with pytest.raises(SettingsError) as caught:
        Outer.parse({"scan.levels": "7", "second.scan.levels": "7"})
    assert str(caught.value).count("bad luck") == 2
    with pytest.raises(SettingsError, match=r"Needs: 'strict\.token' is not set; it must be text"):
        Needs.parse({})


def test_construction_checks_what_is_nested_again() -> None:
    scan = Scan(folders=["a"])
    made = Outer(scan=scan)
    scan.folders.append("b")
    assert made.scan.folders == ["a"]
    scan.folders.append(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingsError, match=r"Outer: 'scan': Scan: 'folders' must be") as caught:
        Outer(scan=scan)
    assert caught.value.key == "scan.folders"
    wrong: Any = {"root": "/"}
    with pytest.raises(SettingsError, match=r"Outer: 'scan' must be a Scan, not \{'root': '/'\}"):
        Outer(scan=wrong)


def test_secrets_within_are_masked_and_collected() -> None:
    assert "hunter2" not in repr(Outer())
    assert "login=Login(name='nobody', password=***)" in repr(Outer())
    assert secrets_of(Outer(again=Scan(login=Login(password=Secret("other"))))) == {"hunter2", "other"}


SCANS = st.builds(
    Scan,
    root=st.text(max_size=5),
    depth=st.sampled_from([1, 2, 3, 10]),
    pause=st.timedeltas(),
    folders=st.lists(st.text(max_size=5), max_size=2),
    login=st.builds(Login, name=st.text(max_size=5), password=st.text(max_size=5).map(Secret)),
).filter(lambda scan: scan.root != "/")
OUTERS = st.builds(Outer, title=st.text(max_size=5), scan=SCANS, again=SCANS, limit=st.integers(0, 10**12).map(Size))


@PATIENT
@given(OUTERS)
def test_a_nested_snapshot_that_was_put_is_read_back(original: Outer) -> None:
    sent = flat(original)
    assert list(sent) == [leaf.key for leaf in leaves_of(Outer)]
    values = {key: str(value) for key, value in sent.items()}
    assert Outer.parse(values) == original
    assert {key: read_key(Outer, values, key) for key in sent} == sent
    assert unknown_keys(Outer, values) == ()


@PATIENT
@given(OUTERS, OUTERS)
def test_a_difference_is_of_attributes_and_of_dotted_keys(old: Outer, new: Outer) -> None:
    keys = changed_keys(old, new)
    assert keys == {key for key, value in flat(new).items() if value != flat(old)[key]}
    assert difference(old, new) == {
        item.name for item in fields_of(Outer) if getattr(old, item.name) != getattr(new, item.name)
    }
    assert {leaf.name.partition(".")[0] for leaf in leaves_of(Outer) if leaf.key in keys} == difference(old, new)


@PATIENT
@given(st.dictionaries(st.sampled_from([leaf.key for leaf in leaves_of(Outer)]), st.text(max_size=8), max_size=3))
def test_any_text_parses_or_is_an_error_that_tells_a_dotted_key(values: dict[str, str]) -> None:
    try:
        parsed = Outer.parse(values)
    except SettingsError as error:
        told = str(error)
    else:
        assert Outer.parse({key: str(value) for key, value in flat(parsed).items()}) == parsed
        return
    assert any(f"'{key}'" in told for key in (*values, "scan", "second.scan"))


# --- drafts -----------------------------------------------------------------------------------------------------------


def test_a_draft_opens_what_is_nested() -> None:
    before = Outer()
    draft: Any = Draft(before)
    assert Draft.changes(draft) == {}
    draft.scan.depth = 4  # as it is
    assert Draft.changes(draft) == {}
    draft.scan.depth = 9
    draft.scan.login.name = "me"
    draft.scan.folders.append("x")
    draft.title = "b"
    changed = replace(before.scan, depth=9, folders=["x"], login=Login(name="me"))
    assert Draft.changes(draft) == {"title": "b", "scan": changed}
    assert before == Outer()
    assert "hunter2" not in repr(draft)


def test_a_whole_snapshot_can_be_assigned_to_a_draft_and_opened_again() -> None:
    draft: Any = Draft(Outer())
    draft.scan = Scan(depth=4)
    assert Draft.changes(draft) == {}
    opt: Any = Scan(root="/opt")
    draft.scan = opt
    draft.scan.depth = 8
    assert Draft.changes(draft) == {"scan": Scan(root="/opt", depth=8)}
    draft.scan = Login()
    assert Draft.changes(draft) == {"scan": Login()}  # for the rule to refuse


def test_a_draft_refuses_names_and_values_that_no_setting_has() -> None:
    draft: Any = Draft(Outer())
    with pytest.raises(SettingsError, match="there is no setting 'dpeth'; there are root, depth, pause"):
        draft.scan.dpeth = 4
    draft.scan.depth = 11
    with pytest.raises(SettingsError, match="Scan: 'levels' must be a whole number"):
        Draft.changes(draft)


class changesSettings(Settings):  # noqa: N801
    changes: int = 1


def test_a_setting_may_be_named_as_a_method_of_the_draft() -> None:
    draft: Any = Draft(changesSettings())
    draft.changes = 2
    assert (draft.changes, Draft.changes(draft)) == (2, {"changes": 2})


class Scanner(Plugin):
    id = "Scanner"
    settings: Outer


@Scanner.command("deepen")
class Deepen(Handler[Scanner]):
    async def handle(self, message: Message[dict[str, int]]) -> int:
        async with self.plugin.edit_settings() as draft:
            draft.scan.depth = message.payload["depth"]
            draft.scan.login.password = Secret("correct horse")
        return self.plugin.settings.scan.depth


async def test_only_what_changed_within_is_written() -> None:
    async with hosted(Scanner, settings={"scan.root": "/opt", "second.scan.folders.0": "x"}) as host:
        assert host.plugin.settings.again.folders == ["x"]
        assert (await host.command("deepen", depth=8))["result"] == 8
        assert host.agent.stored == {"scan.levels": "8", "scan.login.password": "correct horse"}
        assert host.plugin.settings.scan.login.password.reveal() == "correct horse"
        assert host.plugin.settings.scan.root == "/opt"
        with pytest.raises(SettingsError, match=r"'scan\.levels' must be"):
            await host.change_setting("scan.levels", 11)
        assert host.plugin.settings.scan.depth == 8
