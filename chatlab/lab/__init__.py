"""What a notebook holds: engines, servers and clients to start and stop from cells, panels, traces, verdicts.

All of it runs on this machine, and so does what learners write beside it: whatever imports from here reaches loopback
directly, whether or not the environment names a proxy.
"""

from chatlab.proxies import keep_loopback_direct

keep_loopback_direct()
