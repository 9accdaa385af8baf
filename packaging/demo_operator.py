"""One more program that the agent of the demo launches: it changes a setting through PluginSettings, over HTTPS.

The agent answers only processes that it has launched, so whoever runs the demo cannot do this from outside.
"""

import asyncio
import sys

from kepm_plugin.agent import open_agent


async def change(api_base: str, plugin: str, key: str, value: str) -> None:
    """Write one setting, and print what the agent has then."""
    async with open_agent(api_base) as agent:
        await agent.put_setting(plugin, key, value)
        print(f"PUT {key}: it is now {await agent.setting(plugin, key)}", flush=True)


if __name__ == "__main__":
    asyncio.run(change(*sys.argv[1:]))
