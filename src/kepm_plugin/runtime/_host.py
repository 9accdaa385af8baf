"""What a running plugin can ask for: publishing, requests, subscriptions, settings."""

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import anyio
import anyio.lowlevel

from kepm_plugin.contract import SYSTEM_PLUGIN, Contract
from kepm_plugin.dispatch import Dispatcher
from kepm_plugin.errors import LinkLost
from kepm_plugin.link import Session
from kepm_plugin.live import Agent, LiveSettings
from kepm_plugin.message import Publication, Received
from kepm_plugin.outbox import Outbox
from kepm_plugin.plugin import Declarations, Subscription
from kepm_plugin.settings import Change, Settings
from kepm_plugin.store import Keep
from kepm_plugin.topics import covers

from ._requests import Requests
from ._settings import system_settings
from ._subscriptions import Subscriptions


class PluginHost:
    """The `Host` of a running plugin. `session` is None while the link is down."""

    def __init__(
        self,
        outbox: Outbox,
        contract: Contract,
        agent: Agent,
        settings: LiveSettings,
        run_soon: Callable[[Callable[[], object]], None],
        declarations: Declarations,
    ) -> None:
        self._outbox, self._agent, self._settings = outbox, agent, settings
        self._run_soon = run_soon
        self.declarations = declarations
        self._requests = Requests(outbox, contract)
        self._filters = _filters(declarations, contract)
        self._subscriptions = Subscriptions(self._filters, declarations.plugin.qos)
        self._opening: int | None = None
        self.session: Session | None = None

    @property
    def dispatcher(self) -> Dispatcher | None:
        """Who takes the messages; None until the plugin is about to serve."""
        return self._subscriptions.dispatcher

    @dispatcher.setter
    def dispatcher(self, dispatcher: Dispatcher) -> None:
        self._subscriptions.dispatcher = dispatcher

    def filters(self) -> list[str]:
        """Return what the link subscribes at a connect."""
        return list(self._filters)

    @contextmanager
    def opening(self) -> Generator[None]:
        """Run the opening half of `lifespan` inside: the link waits for it, and so it must not wait for the link."""
        self._opening = anyio.get_current_task().id
        try:
            yield
        finally:
            self._opening = None

    def _check_linkable(self, what: str) -> None:
        # A task that `lifespan` has started may wait: the link comes up behind it.
        if self._opening is not None and self._opening == anyio.get_current_task().id:
            raise LinkLost(
                f"{what} cannot be answered yet: the link is opened when `lifespan` has reached its `yield`; do this "
                "in a background method"
            )

    async def link_up(self, session: Session) -> None:
        """Use a session whose `filters` are subscribed."""
        self.session = session
        await self._subscriptions.link_up(session)

    def link_lost(self, reason: str) -> None:
        """Tell those who wait for an answer."""
        self.session = None
        self._subscriptions.link_lost()
        self._requests.link_lost(reason)

    def pause_reading(self, pause: bool) -> None:
        """Have the session read nothing more for now, or go on."""
        if self.session is not None:
            (self.session.pause_reading if pause else self.session.resume_reading)()

    async def publish(self, publication: Publication, *, wait: Any, timeout: float | None) -> None:
        """Hand over to the outbox; wait for it, with its disk, or for the broker's acknowledgement."""
        if wait == "acknowledged":
            self._check_linkable(f"the publication on {publication.topic!r}, with wait='acknowledged',")
        await self._outbox.put(publication, wait=wait, timeout=timeout, kind=Keep.PUBLICATION)

    def publish_soon(self, publication: Publication) -> None:
        """Hand over to the outbox from any thread.

        Raises:
            BadPayload: It is larger than the outbox.
        """
        self._outbox.check(publication)
        self._run_soon(lambda: self._outbox.put_soon(publication, kind=Keep.PUBLICATION))

    async def request(self, topic: str, response: str, question: Any, answer_type: Any, timeout: float) -> Any:
        """Send a question and wait for the answer with its correlation id."""
        self._check_linkable(f"the question on {topic!r}")
        if self.session is None:
            raise LinkLost(f"the link is down; the question on {topic!r} was not sent")
        return await self._requests.ask(topic, response, question, answer_type, timeout)

    def answered(self, received: Received) -> None:
        """Take a message of a response topic."""
        self._requests.answered(received)

    def subscribe(self, topic_filter: str) -> AbstractAsyncContextManager[Subscription]:
        """Receive what a filter brings while the context is open."""
        return self._subscriptions.open(topic_filter)

    async def answer(self, ticket: str, result: object) -> None:
        """Answer a command whose handler left that for later."""
        if self.dispatcher is None:
            raise LinkLost("the plugin does not serve yet; answer from a handler, a tick or a background method")
        self.dispatcher.answer(ticket, result)
        await anyio.lowlevel.checkpoint()

    async def write_settings(self, before: Settings, changes: dict[str, Any]) -> None:
        """Write what changed since a snapshot as one transaction, and take the new one."""
        await self._settings.write(before, changes)

    async def revert_settings(self) -> Change[Any] | None:
        """Revert, take the new snapshot, and return what that has changed."""
        return await self._settings.revert()

    async def agent_settings(self) -> dict[str, str]:
        """Return the agent's own merged settings."""
        return await system_settings(self._agent)

    async def agent_setting(self, key: str) -> str:
        """Return one of the agent's own merged settings."""
        return await self._agent.setting(SYSTEM_PLUGIN, key)


def _filters(declarations: Declarations, contract: Contract) -> tuple[str, ...]:
    own, primary = tuple(declarations.filters), declarations.plugin.id
    wanted = contract.subscribe_primary_topic and not any(covers(one, primary) for one in own)
    return (*own, primary) if wanted else own
