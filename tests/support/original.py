"""The article's own programs in Spring, for tests."""

from __future__ import annotations

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from tests.support import require


async def start(profile: str, redis: str = "") -> engines.Engine:
    """Start one of the programs. Skip the test if they are not built, or fail it if CHATLAB_REQUIRE names `spring`."""
    try:
        return await engines.start("spring", options={"profile": profile, "redis": redis})
    except EngineMissing as absent:
        require.missing("spring", absent.remedy)


def stomp_url(program: engines.Engine) -> str:
    """Return the URL for STOMP without SockJS's framing."""
    return f"{program.url.replace('http', 'ws', 1)}/ws/websocket"
