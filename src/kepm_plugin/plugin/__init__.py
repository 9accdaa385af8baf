"""What authors subclass and decorate. Declarations only: nothing here opens, reads or sends anything."""

from ._declarations import Declarations, HandlerRoute, RequestRoute, Route
from ._handler import Handler, HandlerSpec
from ._plugin import Plugin
from ._publish import Host, Publisher, Request, Subscription
from ._schedule import Background, Every, background, every, in_seconds
from ._snapshot import holding_settings
from ._typed import check_types
from ._values import Gap

__all__ = [
    "Background",
    "Declarations",
    "Every",
    "Gap",
    "Handler",
    "HandlerRoute",
    "HandlerSpec",
    "Host",
    "Plugin",
    "Publisher",
    "Request",
    "RequestRoute",
    "Route",
    "Subscription",
    "background",
    "check_types",
    "every",
    "holding_settings",
    "in_seconds",
]
