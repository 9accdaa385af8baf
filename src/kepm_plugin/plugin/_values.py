"""Small values that authors receive."""

from msgspec import Struct


class Gap(Struct, frozen=True, kw_only=True):
    """How long the plugin was away from the broker, and what that may have cost."""

    seconds: float
    """From the loss of the link to the confirmed subscriptions."""
    reason: str
    """Why the link was lost; `suspended` after a sleep of the machine."""
    session_present: bool
    """Whether the broker had kept the session (MQTT 5.0, section 3.2.2.1.1); otherwise what was sent is gone."""
    dropped: int = 0
    """Publications of ours that waited too long and were dropped. What was on its way at QoS 0 when the link was lost
    may be gone too; nobody can tell."""
