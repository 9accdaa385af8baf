"""`python -m tests.e2e.recording_agent`: a local agent that leaves behind what went through its gate."""

import argparse
import asyncio
import json
import signal
from pathlib import Path

from kepm_plugin.devagent import DevOptions, dev_agent


async def record(options: DevOptions, file: Path) -> None:
    """Run until SIGTERM, then write each packet of interest as a line of JSON."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with dev_agent(options) as agent:
        await stop.wait()
    with file.open("w", encoding="utf-8") as lines:
        for one in agent.traffic:
            lines.write(json.dumps({"topic": one.topic, "note": one.note, "payload": one.payload.hex()}) + "\n")


def main() -> None:
    """Run the agent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--broker", choices=("mosquitto", "nats"), required=True)
    parser.add_argument("--no-color", action="store_true")
    given = parser.parse_args()
    asyncio.run(record(DevOptions(root=given.root, broker=given.broker, color=False), given.record))


if __name__ == "__main__":
    main()
