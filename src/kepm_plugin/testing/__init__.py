"""The plugin under test, in memory: no agent, no broker, no files.

    async def test_scan_counts() -> None:
        async with hosted(MyWorker, settings={"scan.root": "/tmp"}) as host:
            answer = await host.command("scan", depth=1)
        assert answer["ok"]

Everything but the two adapters is the real thing: routing, decoding, lanes, answers, settings, logs. It runs on asyncio
and on trio. A failure in the plugin that the test does not look at fails the test, see `Hosted.errors`.
"""

from ._agent import MemoryAgent
from ._failures import Failed
from ._hosted import Hosted, hosted
from ._memory import MemoryBroker

__all__ = ["Failed", "Hosted", "MemoryAgent", "MemoryBroker", "hosted"]
