"""Write plugins for Keeper Endpoint Privilege Manager (KEPM).

Authors import from `kepm_plugin`, `kepm_plugin.errors` and `kepm_plugin.testing`; nothing else is for them.
"""

from . import _importing

with _importing.importing():
    from . import errors
    from ._version import __version__
    from .errors import Rejected, Retry
    from .message import Message
    from .plugin import Gap, Handler, Plugin, Publisher, Request, background, every
    from .programs import program_environment
    from .settings import Change, Secret, Settings, Size, setting

__all__ = [
    "Change",
    "Gap",
    "Handler",
    "Message",
    "Plugin",
    "Publisher",
    "Rejected",
    "Request",
    "Retry",
    "Secret",
    "Settings",
    "Size",
    "__version__",
    "background",
    "errors",
    "every",
    "program_environment",
    "setting",
]
