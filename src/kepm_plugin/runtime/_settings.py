"""What is asked of the agent besides watching: patiently at the start, and its own settings."""

import logging
from collections.abc import Awaitable, Callable, Mapping

import anyio

from kepm_plugin.contract import (
    BROKER_HOST_KEY,
    BROKER_PORT_KEY,
    DEFAULT_BROKER_HOST,
    DEFAULT_BROKER_PORT,
    SYSTEM_PLUGIN,
)
from kepm_plugin.errors import AgentRefused, AgentUnreachable, BadAgentAnswer
from kepm_plugin.link import delays
from kepm_plugin.live import Agent

log = logging.getLogger("kepm_plugin.runtime")


async def patiently(
    get: Callable[[], Awaitable[dict[str, str]]], budget: float, check: Callable[[], None]
) -> dict[str, str]:
    """Ask the agent until it answers: right after the start it may not have registered this process (HTTP Reference).

    Args:
        get: What to ask.
        budget: Seconds until the last refusal is final.
        check: Called before each further try; raises when there is no sense in waiting.

    Raises:
        AgentError: The last refusal, or at once one that waiting does not mend.
    """
    deadline = anyio.current_time() + budget
    for wait in delays(0.1, 2.0):
        try:
            return await get()
        except (AgentRefused, AgentUnreachable) as exc:
            if anyio.current_time() + wait > deadline:
                raise
            log.info("agent.waiting", extra={"reason": str(exc)})
        check()
        await anyio.sleep(wait)
    raise AssertionError("unreachable: delays() does not end")


def broker_address(values: Mapping[str, str]) -> tuple[str, int]:
    """Return the broker's host and port from the agent's own settings.

    Raises:
        BadAgentAnswer: The port is no port.
    """
    host = values.get(BROKER_HOST_KEY) or DEFAULT_BROKER_HOST
    text = values.get(BROKER_PORT_KEY) or str(DEFAULT_BROKER_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise BadAgentAnswer(f"the agent's setting {BROKER_PORT_KEY} is {text!r}; it must be a port from 1 to 65535")
    return host, int(text)


async def system_settings(agent: Agent) -> dict[str, str]:
    """Return the agent's own merged settings."""
    return await agent.settings(SYSTEM_PLUGIN)
