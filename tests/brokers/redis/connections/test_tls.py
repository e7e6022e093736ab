"""A real Redis that speaks TLS: the broker connects, verifies its certificate, and says what is wrong with one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from chatlab.brokers.redis import RedisStreamsBroker
from chatlab.errors import BrokerError, SetupError
from chatlab.lab.engines.kinds import free_ports
from tests.support import require
from tests.support.redis_program import accepts


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with ca.pem, server.pem and server.key for 127.0.0.1, and other.pem, an authority without a say."""
    if shutil.which("openssl") is None:
        require.missing("openssl", "`sudo apt-get install openssl`")
    folder = tmp_path_factory.mktemp("tls")
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        openssl(folder, *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    of_ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    openssl(folder, *new, *of_ca, "-subj", "/CN=redis", "-keyout", "server.key", "-out", "server.pem")
    yield folder


@pytest_asyncio.fixture
async def port(certificates: Path, tmp_path: Path) -> AsyncIterator[int]:
    """The port of a `redis-server` that speaks TLS only, and asks clients for no certificate."""
    program = shutil.which("redis-server")
    if program is None:
        require.missing("redis", "`sudo apt-get install redis-server`")
    (port,) = free_ports(1)
    files = {"cert": "server.pem", "key": "server.key", "ca-cert": "ca.pem"}
    options = [each for name, file in files.items() for each in (f"--tls-{name}-file", str(certificates / file))]
    process = await asyncio.create_subprocess_exec(
        program,
        *("--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"),
        *("--dir", str(tmp_path), "--save", "", *options),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(15):
            while not await accepts(port):
                if process.returncode is not None:
                    pytest.skip(f"{program} was built without TLS")
                await asyncio.sleep(0.01)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_record_goes_out_and_comes_back_over_tls(port: int, certificates: Path) -> None:
    url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificates / 'ca.pem'}"
    async with RedisStreamsBroker(url) as broker, aclosing(await broker.subscribe("tls")) as records:
        await broker.publish("tls", "안녕".encode() * 20_000)  # longer than one TLS record
        async with asyncio.timeout(10):
            assert (await anext(records)).body == "안녕".encode() * 20_000


@pytest.mark.parametrize("options", ["", "?ssl_ca_certs={folder}/other.pem"], ids=["no-authority", "another-authority"])
async def test_a_certificate_that_cannot_be_verified_is_refused(port: int, certificates: Path, options: str) -> None:
    with pytest.raises(SetupError, match=r"certificate verify failed: .*ssl_ca_certs=FILE"):
        await RedisStreamsBroker(f"rediss://127.0.0.1:{port}{options.format(folder=certificates)}").start()


async def test_a_certificate_for_another_host_is_refused(port: int, certificates: Path) -> None:
    with pytest.raises(SetupError, match=r"mismatch.*; connect to a host that its certificate names"):
        await RedisStreamsBroker(f"rediss://localhost:{port}?ssl_ca_certs={certificates / 'ca.pem'}").start()


async def test_a_url_without_tls_to_a_port_with_tls_is_told_to_write_rediss(port: int) -> None:
    with pytest.raises(BrokerError, match="write rediss:// for redis://"):
        await RedisStreamsBroker(f"redis://127.0.0.1:{port}").start()
