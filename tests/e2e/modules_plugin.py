"""A plugin like any other, started as an author's is, that tells what its process has imported."""

import gc
import sys

from kepm_plugin import Handler, Message, Plugin


class Modules(Plugin):
    """Tells what it is made of."""

    id = "Modules"
    version = "1.0.0"


@Modules.command("tell")
class Tell(Handler[Modules]):
    """Tells the modules of the process."""

    async def handle(self, message: Message[dict[str, str]]) -> dict[str, object]:
        return {"modules": sorted(sys.modules), "frozen": gc.get_freeze_count(), "collecting": gc.isenabled()}


if __name__ == "__main__":
    Modules.main()
