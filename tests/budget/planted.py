"""`python -m tests.budget.planted REGRESSION PATH…`: counts paths with a regression planted in the framework's code.

`call` has finding a handler, and keeping a log record, call one more function, which does nothing. `search` has finding
a handler look at as many things as there are filters.
"""

import sys
from typing import Any, Final

from kepm_plugin.logpipe import LogPipe
from kepm_plugin.topics import Router
from tests.budget.__main__ import main
from tests.budget.counter import OURS

CALL: Final = """
def nothing():
    return None

def slower(function):
    def slowed_down(self, *args):
        nothing()
        return function(self, *args)
    return slowed_down
"""

SEARCH: Final = """
def slower(function):
    def slowed_down(self, *args):
        for filter in self.filters:
            pass
        return function(self, *args)
    return slowed_down
"""

LISTING: Final = """
def slower(function):
    def made(self, routes):
        self.filters = list(routes)
        function(self, self.filters)
    return made
"""


def _slower(source: str, function: Any) -> Any:
    """Return a function that is slower, and seems to be the framework's."""
    made: dict[str, Any] = {}
    exec(compile(source, f"{OURS}planted.py", "exec"), made)  # noqa: S102  the regression
    return made["slower"](function)


def plant(regression: str) -> None:
    """Make the framework slower."""
    router: Any = Router
    pipe: Any = LogPipe
    router.find = _slower(SEARCH if regression == "search" else CALL, router.find)
    if regression == "search":
        router.__init__ = _slower(LISTING, router.__init__)
    else:
        pipe.put_flat = _slower(CALL, pipe.put_flat)


if __name__ == "__main__":
    plant(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
