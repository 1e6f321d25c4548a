"""The event loop of `serve`."""

import asyncio
import multiprocessing
import os
import signal
from importlib.util import find_spec
from typing import Any

from app.core.settings import CoreSettings


def choose_loop(settings: CoreSettings, workers: int) -> str:
    """The name of a loop, as uvicorn expects it."""
    # psycopg cannot use the default loop of Windows. Elsewhere, "auto" prefers uvloop.
    on_sqlite = settings.database_url.startswith("sqlite")
    has_other = on_sqlite if os.name == "nt" else find_spec("uvloop")
    return "auto" if workers == 1 and has_other else "app.core.event_loop:SharingLoop"


class SharingLoop(asyncio.SelectorEventLoop):
    """Accepts one connection in each cycle, so that a busy worker leaves some to the others.

    asyncio accepts all that have arrived. A proxy that keeps its connections open would then use
    one worker only, and without a free file descriptor, asyncio would fill the log: it tries 2,048
    times in a row. Python 3.14 and later accept two here.
    """

    def __init__(self) -> None:
        super().__init__()
        parent = multiprocessing.parent_process()
        if parent and os.name != "nt":
            # Readable when the parent is gone.
            self.add_reader(parent.sentinel, self._end_orphan, parent.sentinel)

    def _end_orphan(self, sentinel: int) -> None:
        """End as on SIGTERM. Otherwise, workers would keep the port of a parent that was killed."""
        self.remove_reader(sentinel)
        os.kill(os.getpid(), signal.SIGTERM)

    def _start_serving(self, *arguments: Any, **options: Any) -> None:
        # asyncio has no public option for this number, the fifth argument, so its types do not
        # know this method.
        before, after = arguments[:4], arguments[5:]
        super()._start_serving(*before, 1, *after, **options)  # type: ignore[misc]
