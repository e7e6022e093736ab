"""Real reverse proxies: haproxy and nginx, each in front of one server, which it serves under a path."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.require import missing

PREFIX = "/a/deep/path/"
SECONDS = 10

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend front
    bind 127.0.0.1:{port}
    http-request deny deny_status 404 unless {{ path_beg {prefix} }}
    http-request replace-path {prefix}(.*) /\\1
    default_backend back
backend back
    server one 127.0.0.1:{to}
"""

# nginx forwards a WebSocket upgrade only if configured to. /plain/ has the defaults: HTTP/1.0, and each answer is
# buffered until it is complete.
NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr warn; events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen 127.0.0.1:{port};
        location {prefix} {{
            proxy_pass http://127.0.0.1:{to}/;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
        location /plain/ {{ proxy_pass http://127.0.0.1:{to}/; proxy_set_header Host $http_host; }}
        location / {{ return 404; }}
    }}
}}
"""


@contextlib.asynccontextmanager
async def behind(kind: str, to: int, folder: Path, prefix: str = PREFIX) -> AsyncIterator[str]:
    """Run haproxy or nginx in front of the server on port `to`; yield the URL under which the server is reached."""
    program = shutil.which(kind) or shutil.which(f"/usr/sbin/{kind}") or missing(kind, f"sudo apt install {kind}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    file = folder / f"{kind}.conf"
    file.write_text((HAPROXY if kind == "haproxy" else NGINX).format(port=port, to=to, prefix=prefix), encoding="utf-8")
    options = ["-db", "-f", str(file)] if kind == "haproxy" else ["-p", str(folder), "-c", str(file)]
    process = await asyncio.create_subprocess_exec(program, *options, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(SECONDS):
            while process.returncode is None:
                if await _listens(port):
                    break
                await asyncio.sleep(0.02)
        assert process.returncode is None, f"{kind} ended"
        yield f"http://127.0.0.1:{port}{prefix}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
