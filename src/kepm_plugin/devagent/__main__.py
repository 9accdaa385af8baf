"""`python -m kepm_plugin.devagent --root DIR`: the local agent as a process of its own."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from kepm_plugin.devagent.likeness import Likeness
from kepm_plugin.devagent.options import DevOptions
from kepm_plugin.devagent.running import serve
from kepm_plugin.errors import KepmError


def parsed(arguments: Sequence[str]) -> DevOptions:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(prog="python -m kepm_plugin.devagent", description=__doc__)
    parser.add_argument("--root", type=Path, help="agent root; a temporary one by default")
    parser.add_argument("--broker", choices=("auto", "mosquitto", "nats"), default="auto")
    parser.add_argument("--broker-model", choices=("classic", "embedded"), default="classic")
    parser.add_argument("--unlimited-queue", action="store_true", help="mosquitto queues as many messages as come")
    parser.add_argument("--https-port", type=int)
    parser.add_argument("--mqtt-port", type=int)
    parser.add_argument("--monitor-interval", type=float, default=DevOptions().monitor_interval, metavar="SECONDS")
    parser.add_argument("--first-check", type=float, default=DevOptions().first_check, metavar="SECONDS")
    parser.add_argument("--real-intervals", action="store_true", help="check plugins as seldom as the agent does")
    parser.add_argument("--stop-grace", type=float, default=DevOptions().stop_grace, metavar="SECONDS")
    parser.add_argument("--registration-delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--client-id", help="the one client id that is accepted; may hold {PluginId} and {Suffix}")
    parser.add_argument("--like", action="append", default=[], metavar="NAME=VALUE", help="see docs/contract.md")
    parser.add_argument("--status", choices=("settings-hash", "file-hash", "none"), default="settings-hash")
    parser.add_argument("--trust-children", action="store_true", help="trust what a plugin's process launches, too")
    parser.add_argument("--leave-orphans", action="store_true", help="should the agent be killed, plugins live on")
    parser.add_argument("--no-mqtt5", dest="mqtt5", action="store_false", help="let MQTT 3.1.1 through only")
    parser.add_argument("--no-color", dest="color", action="store_const", const=False)
    given = vars(parser.parse_args(arguments))
    return DevOptions(like=Likeness.of(given.pop("like"), given.pop("client_id")), **given)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until it is asked to stop; return the exit code."""
    try:
        asyncio.run(serve(parsed(sys.argv[1:] if arguments is None else arguments)))
    except KepmError as exc:
        print(f"kepm-plugin dev: {exc}", file=sys.stderr)
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
