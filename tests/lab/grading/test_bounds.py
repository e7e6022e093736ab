"""Bounds, in a process of its own: there is no way back."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, os, socket, sys
from pathlib import Path
from chatlab.lab.grading.bounds import with_bounds
folder = Path(sys.argv[1])
os.chdir(folder)
alone = with_bounds(folder)
def tried(what):
    try:
        what()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
listener = socket.create_server(("127.0.0.1", 0))
print(json.dumps({
    "alone": alone,
    "loopback": tried(lambda: socket.create_connection(listener.getsockname()).close()),
    "elsewhere": tried(lambda: socket.create_connection(("192.0.2.1", 80), 1)),
    "a name": tried(lambda: socket.getaddrinfo("chat.example", 80)),
    "every address": tried(lambda: socket.create_server(("0.0.0.0", 0))),
    "a file here": tried(lambda: Path("own.txt").write_text("x")),
    "a file there": tried(lambda: (folder.parent / "other.txt").write_text("x")),
    "through a link": tried(lambda: Path("link").symlink_to(folder.parent) or Path("link/other.txt").write_text("x")),
    "memory": tried(lambda: bytearray(4 << 30)),
}))
"""


def test_only_the_loopback_and_the_own_folder_are_within_bounds(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, check=True, text=True)
    tried = json.loads(done.stdout)
    assert tried.pop("alone") in (True, False)  # as the kernel allows
    if sys.platform != "linux":
        del tried["memory"]
    within = {name for name, outcome in tried.items() if outcome == "done"}
    assert within == {"loopback", "a file here"}
    assert not (tmp_path / "other.txt").exists()
