"""How a file differs from what the code needs, said as permissions and fields gained and lost."""

from collections.abc import Iterator
from typing import Final

from ._document import Manifest, shown
from ._fields import FIELDS

_PERMISSIONS: Final = {"metadata.mqttTopics.publish": "publish", "metadata.mqttTopics.subscribe": "subscribe"}
_UNORDERED: Final = {"supportedPlatforms", "metadata.mqttRole"}


def drift(expected: Manifest, actual: Manifest) -> list[str]:
    """Return one line for each difference, none where a file is in step with the code.

    `lost` is a permission that only the file has, `gained` one that only the code has. The order of lists does not
    count. A setting counts where the code has a default for it; further keys of the file, at the root or deeper, are
    the operator's and do not count.
    """
    lines = [line for path, name in _PERMISSIONS.items() for line in _permissions(name, path, expected, actual)]
    for one in FIELDS:
        if one.kind == "object" or one.path in _PERMISSIONS:
            continue
        ours, theirs = expected.get(one.path, _NOTHING), actual.get(one.path, _NOTHING)
        unordered = one.path in _UNORDERED and _NOTHING not in (ours, theirs)
        if set(ours) != set(theirs) if unordered else ours != theirs:
            lines.append(f"field {one.path}: expected {_text(ours)}, found {_text(theirs)}")
    for key, ours in expected.settings.items():
        theirs = actual.settings.get(key, _NOTHING)
        if ours != theirs or isinstance(ours, bool) is not isinstance(theirs, bool):
            lines.append(f"setting {key}: expected {_text(ours)}, found {_text(theirs)}")
    return lines


_NOTHING: Final = object()


def _text(value: object) -> str:
    return "nothing" if value is _NOTHING else shown(value)


def _permissions(name: str, path: str, expected: Manifest, actual: Manifest) -> Iterator[str]:
    ours, theirs = set(expected.get(path, ())), set(actual.get(path, ()))
    for topic in sorted(theirs - ours):
        yield f"{name}: lost {topic}"
    for topic in sorted(ours - theirs):
        yield f"{name}: gained {topic}"
