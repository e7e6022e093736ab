"""The parts of a notebook: engines, servers and clients to start and stop from cells, panels, traces, verdicts.

Everything runs on this machine, including the servers that learners write. Importing this package makes connections to
loopback direct, whether or not the environment names a proxy.
"""

from chatlab.proxies import keep_loopback_direct

keep_loopback_direct()
