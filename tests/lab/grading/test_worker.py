"""The worker's messages: JSON with the token it was given, a beginning and a verdict for each exercise."""

import json
import multiprocessing
from pathlib import Path

from chatlab.lab.grading import worker


def test_each_exercise_begins_and_has_a_verdict_with_the_token(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    cell = 'def proof(key):\n    return ""\nawait check("01.1", proof)'
    work = {"cells": [[cell, ["01.1"]]], "exercises": ["01.1"], "token": "t", "folder": str(tmp_path), "seed": "nuri"}
    process = context.Process(target=worker.judge, args=(theirs, json.dumps(work)))
    process.start()
    theirs.close()
    begins, verdict = (json.loads(ours.recv_bytes()) for __ in range(2))
    process.join()
    assert begins == {"token": "t", "begins": "01.1"}
    assert (verdict["token"], verdict["id"], verdict["mark"]) == ("t", "01.1", "not yet")
