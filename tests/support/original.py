"""The article's own programs in Spring, for tests."""

from __future__ import annotations

from chatlab.errors import EngineMissing
from chatlab.lab.engines import engine as engines
from tests.support import require


async def start(profile: str, redis: str = "", **settings: str) -> engines.Engine:
    """Start one of the programs. Skip the test if they are not built, or fail it if CHATLAB_REQUIRE names `spring`.

    `settings` are more of Spring's properties, with `_` for each `.`.
    """
    properties = {name.replace("_", "."): value for name, value in settings.items()}
    try:
        return await engines.start("spring", options={"profile": profile, "redis": redis, **properties})
    except EngineMissing as absent:
        require.missing("spring", absent.remedy)


def stomp_url(program: engines.Engine) -> str:
    """Return the URL for STOMP without SockJS's framing."""
    return f"{program.url.replace('http', 'ws', 1)}/ws/websocket"


def room_url(program: engines.Engine) -> str:
    """Return the URL of the article's room."""
    return f"{program.url.replace('http', 'ws', 1)}/room"
