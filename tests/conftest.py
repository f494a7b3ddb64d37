"""What all tests need of the process that they run in."""

from __future__ import annotations

import signal

# A shell starts what it runs in the background with Ctrl-C ignored, and the commands under test would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
