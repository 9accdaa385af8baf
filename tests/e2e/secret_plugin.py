"""A plugin that lets its secrets slip wherever a careless author would; each command is one such place."""

import argparse
import base64
import json
import logging
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

import structlog

from kepm_plugin import Handler, Message, Plugin, Publisher, Rejected, Settings, setting
from kepm_plugin.runtime import RunOptions, run

log = structlog.get_logger("careless")
library = logging.getLogger("some.library")


class CarelessSettings(Settings):
    token: str = setting(default="", secret=True)
    keys: list[str] = setting(default=[], secret=True)
    private: str = setting(default="", secret=True)
    crash: bool = setting(default=False)

    def validate(self) -> None:
        if self.token.startswith("refused"):
            raise ValueError(f"the token {self.token} is of no use with {self.keys}")

    @property
    def all(self) -> list[str]:
        return [self.token, *self.keys, self.private]


class Careless(Plugin):
    """Tells what it should not."""

    id = "Careless"
    version = "1.0.0"
    settings: CarelessSettings
    settings_interval = 0.2
    outbox = "disk"
    deliberate = Publisher[str]("Deliberate", qos=1)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        self.old: list[str] = []
        if self.settings.crash:
            raise RuntimeError(f"no start with {self.settings.all!r}")
        yield

    async def on_settings_changed(self, change: object) -> None:
        self.old += self.settings.all
        raise RuntimeError(f"cannot use {self.settings.all}")


@Careless.command("raise")
class Raise(Handler[Careless]):
    """Fails with secrets in its exception, and in that one's cause."""

    async def handle(self, message: Message[dict[str, object]]) -> None:
        try:
            json.loads(self.plugin.settings.token)
        except ValueError as error:
            raise RuntimeError("cannot log in: " + "\n".join(self.plugin.settings.all)) from error


@Careless.command("reject")
class Reject(Handler[Careless]):
    """Says no, and with what."""

    async def handle(self, message: Message[dict[str, object]]) -> None:
        raise Rejected(f"denied to {' and '.join(self.plugin.settings.all)}")


@Careless.command("log")
class Log(Handler[Careless]):
    """Logs secrets of now and of before, in every way that is covered, as the author and as a library."""

    async def handle(self, message: Message[dict[str, object]]) -> int:
        secrets = [*self.plugin.settings.all, *self.plugin.old]
        for one in filter(None, secrets):
            basic = base64.b64encode(f"ada:{one}".encode()).decode()
            log.warning(f"spelt {one} {one!r} {json.dumps(one)} {quote(one)} {quote_plus(one)} {quote(one, safe='')}")
            log.info("fields", value=one, nested={"deep": [one, {one: 1}]}, raw=one.encode(), basic=f"Basic {basic}")
            library.error("GET /login?key=%s %r", quote(one, safe=""), {"body": one}, extra={"extra": one})
            library.info("again %s and %s", basic, base64.urlsafe_b64encode(one.encode()).decode())
            try:
                raise KeyError(one)
            except KeyError:
                library.exception("failed with %s", one)
        return len(secrets)


@Careless.command("thread")
class Thread(Handler[Careless]):
    """Fails in a thread of its own, about which nobody asks."""

    async def handle(self, message: Message[dict[str, object]]) -> None:
        def fail() -> None:
            raise RuntimeError(f"thread with {self.plugin.settings.all}")

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()


@Careless.command("publish")
class Publish(Handler[Careless]):
    """Publishes a secret on purpose."""

    async def handle(self, message: Message[dict[str, object]]) -> None:
        await self.plugin.deliberate.publish(self.plugin.settings.keys[0])


def main() -> int:
    """Run the plugin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keeper-api-base")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    return run(
        Careless,
        RunOptions(api_base=given.keeper_api_base, data_dir=given.work / "data", lock_dir=given.work / "lock"),
    )


if __name__ == "__main__":
    sys.exit(main())
