"""`python -m tests.budget.planted REGRESSION PATH…`: counts paths with a regression planted in the framework's code.

`call` has finding a handler, and taking a publication, call one more function, which does nothing. `search` has finding
a handler look at as many things as there are filters.
"""

import sys
from typing import Any, Final

from kepm_plugin.outbox import Outbox
from kepm_plugin.topics import Router
from tests.budget.__main__ import main
from tests.budget.counter import OURS

SOURCE: Final = """
def nothing():
    return None

def calling(function):
    def slowed_down(self, *args, **named):
        nothing()
        return function(self, *args, **named)
    return slowed_down

def listing(function):
    def slowed_down(self, routes):
        global filters
        filters = list(routes)
        function(self, filters)
    return slowed_down

def searching(function):
    def slowed_down(self, topic):
        for each in filters:
            pass
        return function(self, topic)
    return slowed_down
"""


def plant(regression: str) -> None:
    """Make the framework slower, by functions that seem to be its own."""
    made: dict[str, Any] = {}
    exec(compile(SOURCE, f"{OURS}planted.py", "exec"), made)  # noqa: S102  the regression
    router: Any = Router
    outbox: Any = Outbox
    if regression == "search":
        router.__init__, router.find = made["listing"](router.__init__), made["searching"](router.find)
    else:
        router.find, outbox.put_soon = made["calling"](router.find), made["calling"](outbox.put_soon)


if __name__ == "__main__":
    plant(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
