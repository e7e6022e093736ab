"""Run `make lab` as the README says, wait until JupyterLab answers at the address it prints, end it; twice is fine."""

import contextlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

SECONDS = 400  # the first time it installs its packages
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/lab\S*")


def too_late(*_):
    """End a wait that is in vain."""
    raise TimeoutError(f"JupyterLab did not answer in {SECONDS} s")


def address(lab):
    """Show what it prints, until it prints where it is."""
    for line in lab.stdout:
        print("  |", line, end="", flush=True)
        if found := ADDRESS.search(line):
            return found[0]
    raise SystemExit(f"make lab ended with status {lab.wait()} and named no address")


def main():
    """Return when JupyterLab has answered and ended."""
    began = time.monotonic()
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS)
    lab = subprocess.Popen(["make", "lab"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = address(lab)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
            page = answer.read().decode()
            print(f"make lab: HTTP {answer.status} from JupyterLab after {time.monotonic() - began:.1f} s", flush=True)
            assert answer.status == 200 and "JupyterLab" in page, page[:500]
    finally:
        lab.terminate()
        with contextlib.suppress(ValueError):
            lab.communicate(timeout=30)
    with contextlib.suppress(OSError):
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5)
        raise SystemExit(f"JupyterLab still answers at {url}")


if __name__ == "__main__":
    sys.exit(main())
