"""The settings of a running plugin: read, watched, written as transactions, kept for the next start.

The agent offers one key at a time, without versions, notifications or atomicity. What is promised on top of it: a
snapshot that was taken mixes no two of the plugin's own transactions, breaks no rule, and in the end is what the agent
has.
"""

from ._access import Agent
from ._live import LiveSettings
from ._options import LiveOptions, Told
from ._reading import Reading

__all__ = ["Agent", "LiveOptions", "LiveSettings", "Reading", "Told"]
