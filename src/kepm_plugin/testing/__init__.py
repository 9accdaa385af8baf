"""The plugin under test, in memory: no agent, no broker, no files.

    async def test_scan_counts() -> None:
        async with hosted(MyWorker, settings={"scan.root": "/tmp"}) as host:
            answer = await host.command("scan", depth=1)
        assert answer["ok"]

Everything but the two adapters is the real thing: routing, decoding, lanes, answers, settings, logs. It runs on asyncio
and on trio.
"""

from ._hosted import Hosted, MemoryAgent, hosted
from ._memory import MemoryBroker

__all__ = ["Hosted", "MemoryAgent", "MemoryBroker", "hosted"]
