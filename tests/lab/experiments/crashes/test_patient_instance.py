"""The stepper's instance: a chat like any other."""

from __future__ import annotations

import sys

from chatlab.lab.clients import StompMember
from chatlab.lab.engines.cluster import Instance
from chatlab.lab.engines.engine import Engine


async def test_the_instance_serves_the_chat_and_stops_gracefully(fresh_valkey: Engine) -> None:
    module = "chatlab.lab.experiments.crashes.patient_instance"
    instance = Instance(0, [sys.executable, "-P", "-m", module, "--broker", fresh_valkey.url])
    await instance.start()
    try:
        member = StompMember(instance.url, "가람")
        await member.connect()
        await member.send("들려요?")
        await member.heard("가람: 들려요?")
        await member.close()
        assert await instance.stop() == 0
    finally:
        instance.kill()
        instance.release()
