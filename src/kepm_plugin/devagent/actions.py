"""What `ControlClient` may ask of a running agent, by the names that it uses."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kepm_plugin.devagent.agent import DevAgent
from kepm_plugin.devagent.control import Action
from kepm_plugin.devagent.faults import read_fault


def actions(agent: DevAgent) -> dict[str, Action]:
    """Return the actions of an agent; each takes the arguments of a request and returns what JSON can say."""

    async def set_setting(arguments: Mapping[str, Any]) -> bool:
        return agent.put(arguments["plugin"], arguments["key"], arguments["value"])

    async def revert_settings(arguments: Mapping[str, Any]) -> None:
        if arguments["plugin"] is None:
            agent.revert_all()
        else:
            agent.revert(arguments["plugin"])

    async def get_settings(arguments: Mapping[str, Any]) -> dict[str, str]:
        return agent.effective(arguments["plugin"])

    async def settings_status(arguments: Mapping[str, Any]) -> dict[str, object]:
        return agent.status(arguments["plugin"])

    async def settings_layers(arguments: Mapping[str, Any]) -> dict[str, object]:
        return agent.layers(arguments["plugin"])

    async def plugins(_: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        return {plugin_id: asdict(state) for plugin_id, state in agent.plugins.items()}

    async def describe(_: Mapping[str, Any]) -> dict[str, Any]:
        return agent.describe()

    async def clear_faults(arguments: Mapping[str, Any]) -> None:
        agent.faults.clear(arguments["number"])

    async def faults(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"active": agent.faults.active(), "counts": dict(agent.faults.counts)}

    async def deliveries(arguments: Mapping[str, Any]) -> dict[str, Any]:
        return agent.deliveries.page(arguments["plugin"], arguments["since"])

    async def kill_plugin(arguments: Mapping[str, Any]) -> None:
        agent.kill_plugin(arguments["plugin"], arguments["signal"])

    return {
        "send": lambda a: agent.send(a["plugin"], a["command"], a["payload"], timeout=a["timeout"]),
        "get_settings": get_settings,
        "set_setting": set_setting,
        "revert_settings": revert_settings,
        "settings_status": settings_status,
        "settings_layers": settings_layers,
        "plugins": plugins,
        "describe": describe,
        "start": lambda a: agent.start(a["plugin"]),
        "stop": lambda a: agent.stop(a["plugin"]),
        "restart": lambda a: agent.restart(a["plugin"]),
        "kill_engine": lambda a: agent.kill_engine(pause=a["pause"]),
        "kill_plugin": kill_plugin,
        "fault": lambda a: agent.fault(read_fault(a["fault"])),
        "clear_faults": clear_faults,
        "faults": faults,
        "deliveries": deliveries,
    }
