"""The page for a browser or a phone, served from `web/` without a build step.

The Content-Security-Policy admits only the page's own files, and connections only to its own server: even if a mistake
inserted a user's text as markup, it would not run.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).with_name("web")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
# 'self' covers ws: and wss: of the same host and port (Content Security Policy Level 3, 6.7.2.8).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # revalidate each time: nearly always a 304
}


class ChatPage:
    """The files, read once."""

    def __init__(self) -> None:
        paths = [path for path in sorted(FOLDER.rglob("*")) if path.is_file() and path.suffix in TYPES]
        self._files = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in paths}
        self._tags = {name: sha256(data).hexdigest()[:16] for name, data in self._files.items()}

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the page at `/`, and its files next to it."""
        router.add_get("/", self._get)
        for name in self._files:
            router.add_get(f"/{name}", self._get)

    async def _get(self, request: web.Request) -> web.Response:
        name = request.path[1:] or "index.html"
        headers = HEADERS | {"ETag": f'"{self._tags[name]}"'}
        if request.if_none_match and any(tag.value == self._tags[name] for tag in request.if_none_match):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = TYPES[Path(name).suffix]
        return web.Response(body=self._files[name], headers=headers)
