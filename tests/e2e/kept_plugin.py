"""A plugin whose session the broker keeps: it notes what it handles, and what it missed."""

import argparse
import os
import sys
from pathlib import Path

from kepm_plugin import Gap, Handler, Message, Plugin
from kepm_plugin.runtime import RunOptions, run


class Kept(Plugin):
    """Notes what it is sent."""

    id = "Kept"
    version = "1.0.0"
    clean_session = False

    async def on_reconnect(self, gap: Gap) -> None:
        self.note(f"gap: session present {gap.session_present}, dropped {gap.dropped}")

    def note(self, text: str) -> None:
        """Append a line to the ledger."""
        with Path(os.environ["KEPT_LEDGER"]).open("a") as ledger:
            ledger.write(f"{text}\n")


@Kept.command("note")
class Note(Handler[Kept]):
    """Notes a text."""

    async def handle(self, message: Message[dict[str, str]]) -> str:
        self.plugin.note(message.payload["text"])
        return "noted"


def main() -> int:
    """Run the plugin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keeper-api-base")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    os.environ["KEPT_LEDGER"] = str(given.work / "ledger")
    return run(
        Kept, RunOptions(api_base=given.keeper_api_base, data_dir=given.work / "data", lock_dir=given.work / "lock")
    )


if __name__ == "__main__":
    sys.exit(main())
