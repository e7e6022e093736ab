"""Run `make lab`, or the command given, wait until JupyterLab answers at the address it prints, and end it."""

import contextlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

COMMAND = sys.argv[1:] or ["make", "lab"]
SECONDS = 400  # the first time it installs its packages
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy between us and loopback
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/lab\S*")


def too_late(*_):
    """End a wait that is in vain."""
    raise SystemExit(f"JupyterLab did not answer in {SECONDS} s")


def address(lab):
    """Show what it prints, until it prints where it is."""
    for line in lab.stdout:
        print("  |", line, end="", flush=True)
        if found := ADDRESS.search(line):
            return found[0]
    raise SystemExit(f"{' '.join(COMMAND)} ended with status {lab.wait()} and named no address")


def page_at(url):
    """Ask until it answers: it prints its address a moment before it listens."""
    while True:
        try:
            with OPENER.open(url, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.2)


def main():
    """Return when JupyterLab has answered and ended."""
    began = time.monotonic()
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS)
    lab = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = address(lab)
        status, page = page_at(url)
        print(f"{' '.join(COMMAND)}: HTTP {status} from JupyterLab after {time.monotonic() - began:.1f} s", flush=True)
        assert status == 200 and "JupyterLab" in page, page[:500]
    finally:
        lab.terminate()
        with contextlib.suppress(ValueError):
            lab.communicate(timeout=30)
    with contextlib.suppress(OSError):
        OPENER.open(url, timeout=5)
        raise SystemExit(f"JupyterLab still answers at {url}")


if __name__ == "__main__":
    sys.exit(main())
