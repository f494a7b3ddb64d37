"""Whether the Hugging Face hub can be asked: found out within seconds, until it has answered once, before a library
tries.

The libraries themselves try again and again for 23 seconds where there is no network.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

_PROBE_SECONDS: Final = 5.0
_REMEMBERED: Final = 60.0  # seconds: a command asks for several things, and a notebook lives on
_found: dict[str, tuple[bool, float]] = {}  # by endpoint: whether it answered, and when it was asked


def offline_switch(*variables: str) -> str | None:
    """What says that the hub is not to be asked: HF_HUB_OFFLINE, as the library has read it, or one of these
    environment ``variables``."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE"
    return next((name for name in variables if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), None)


def why_unreachable(*variables: str) -> str | None:
    """Why nothing can be asked of the hub; None when it answers. ``variables`` as :func:`offline_switch` takes them."""
    from huggingface_hub import constants

    if switch := offline_switch(*variables):
        return f"{switch} is set"
    endpoint = constants.ENDPOINT
    answered, when = _found.get(endpoint, (False, -_REMEMBERED))
    if not answered and time.monotonic() - when >= _REMEMBERED:
        answered = _answers(endpoint)
        _found[endpoint] = answered, time.monotonic()
    return None if answered else f"no answer from {endpoint}"


def _answers(endpoint: str) -> bool:
    """Whether anything answers there, through the proxy that the library would take.

    Asked in a thread because a name server that drops packets blocks longer than any timeout of the client.
    """
    answered = threading.Event()
    done = threading.Event()

    def ask() -> None:
        from huggingface_hub.utils import get_session

        try:
            get_session().head(endpoint, timeout=_PROBE_SECONDS)
            answered.set()
        except Exception:  # whatever keeps it from answering: no network, no route, a refused connection
            pass
        finally:
            done.set()

    threading.Thread(target=ask, daemon=True).start()
    done.wait(_PROBE_SECONDS + 1)
    return answered.is_set()
