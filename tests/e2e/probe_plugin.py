"""A plugin that the end-to-end tests launch: each command shows one property of a real process."""

import argparse
import asyncio
import os
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path

import aiomqtt
import anyio

from kepm_plugin import Handler, Message, Plugin, Publisher, Settings, setting
from kepm_plugin.errors import UndeclaredTopic
from kepm_plugin.runtime import RunOptions, run


class ProbeSettings(Settings):
    greeting: str = setting(default="hello", key="probe.greeting")
    token: str = setting(default="", secret=True)


class Probe(Plugin):
    """Shows properties of a real process."""

    id = "Probe"
    version = "1.0.0"
    settings: ProbeSettings
    settings_interval = 0.5
    drain = 2.0
    link_budget = float(os.environ.get("PROBE_LINK_BUDGET", "600"))
    event = Publisher[str]("Events/{host}/{what}", qos=1)
    allow_publish = ("Allowed/{what}",)

    def note(self, text: str) -> None:
        """Append a line to the ledger, in one write, so that two processes do not mix their lines."""
        with Path(os.environ["PROBE_LEDGER"]).open("ab", buffering=0) as ledger:
            ledger.write(f"{os.getpid()} {text}\n".encode())
        print(f"noted: {text}", flush=True)  # The agent shows it, even when the event loop is blocked next.


@Probe.command("echo")
class Echo(Handler[Probe]):
    """Answers with what it was given, and who it is."""

    async def handle(self, message: Message[dict[str, object]]) -> dict[str, object]:
        if number := message.payload.get("number"):
            self.plugin.note(str(number))
        return {"pid": os.getpid(), "greeting": self.plugin.settings.greeting, **message.payload}


@Probe.topic("Events/{rest:path}")
class AnyEvent(Handler[Probe]):
    """Takes the events that no other handler takes."""

    async def handle(self, message: Message[str]) -> None:
        self.plugin.note(f"any {message.payload}")


@Probe.topic("Events/{host}/login")
class Login(Handler[Probe]):
    """Its topic lies within that of `AnyEvent`."""

    async def handle(self, message: Message[str]) -> None:
        self.plugin.note(f"login {message.payload}")


@Probe.command("raise")
class Raise(Handler[Probe]):
    """Raises events, to itself."""

    async def handle(self, message: Message[dict[str, object]]) -> None:
        await self.plugin.event.publish("one", host="web", what="login")
        await self.plugin.event.publish("two", host="web", what="logout")
        await self.plugin.event.publish("end", host="web", what="end")


@Probe.command("slow")
class Slow(Handler[Probe]):
    """Takes its time, and says when it has begun."""

    async def handle(self, message: Message[dict[str, float]]) -> str:
        self.plugin.note("slow begun")
        await anyio.sleep(message.payload["seconds"])
        self.plugin.note("slow ended")
        return "finished"


@Probe.command("hang/{kind}")
class HangAwait(Handler[Probe]):
    """Never ends, by waiting."""

    async def handle(self, message: Message[dict[str, object]]) -> None:
        self.plugin.note(f"hang {message.params['kind']}")
        if message.params["kind"] == "loop":
            while True:
                pass
        if message.params["kind"] == "executor":
            await asyncio.to_thread(time.sleep, 3600)
        while message.params["kind"] == "stubborn":
            with suppress(BaseException):
                await anyio.sleep_forever()
        await anyio.sleep_forever()


@Probe.command("hang/thread")
class HangThread(Handler[Probe]):
    """Never ends, in a thread."""

    def handle(self, message: Message[dict[str, object]]) -> None:
        self.plugin.note("hang thread")
        time.sleep(3600)


@Probe.command("undeclared")
class Undeclared(Handler[Probe]):
    """Publishes what the manifest does not declare: through the framework, and past it."""

    async def handle(self, message: Message[dict[str, object]]) -> dict[str, object]:
        try:
            await self.plugin.publish("/Elsewhere/Commands/run", {"run": True})
            refused = ""
        except UndeclaredTopic as exc:
            refused = str(exc)
        values = await self.plugin.agent_settings()
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        async with aiomqtt.Client(
            values["broker.host"], int(values["broker.port"]), identifier="Probe_raw", tls_context=tls
        ) as raw:
            await raw.publish("Elsewhere/Commands/run", b"{}", qos=1, timeout=5)
            await raw.publish("Probe/Allowed/raw", b"{}", qos=1, timeout=5)
        return {"refused": refused, "acknowledged": True}


def main() -> int:
    """Run the plugin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keeper-api-base")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    os.environ["PROBE_LEDGER"] = str(given.work / "ledger")
    bundle = os.environ.get("PROBE_CA_BUNDLE")
    options = RunOptions(
        api_base=given.keeper_api_base,
        ca_bundle=Path(bundle) if bundle else None,
        data_dir=given.work / "data",
        lock_dir=given.work / "lock",
    )
    return run(Probe, options)


if __name__ == "__main__":
    sys.exit(main())
