"""A Space that sleeps when there is nothing to train, and only then.

The Hub puts a Space to sleep when nobody visits it, whatever it computes. So the time of sleep is changed with the
work: never while a job is active, after so many minutes when none is. A visit (the app submitting a clip) wakes it.
"""

from __future__ import annotations

import logging
import threading

from talker.errors import HubError
from talker.hub.compute import set_sleep_time
from talker.jobs.store import JobStore

log = logging.getLogger(__name__)

NEVER = -1


class SleepWhenIdle:
    """One thread that tells the Hub whether the Space may sleep.

    Args:
        store: The jobs; any active one keeps the Space awake.
        space_id: ``owner/name`` of the Space, ``SPACE_ID`` inside it.
        after_s: Seconds without a visit after which it sleeps.
        token: With write access to the Space.
        endpoint: Address of the server; huggingface.co by default.
        look_s: Seconds between two looks.
    """

    def __init__(
        self,
        store: JobStore,
        space_id: str,
        after_s: int,
        *,
        token: str | None = None,
        endpoint: str | None = None,
        look_s: float = 20.0,
    ) -> None:
        self.store, self.space_id, self.after_s, self.look_s = store, space_id, after_s, look_s
        self._where = {"token": token, "endpoint": endpoint}
        self._told: int | None = None
        self._failed = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="sleep", daemon=True)

    def start(self) -> SleepWhenIdle:
        """Follow the jobs until :meth:`stop`."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()

    def look(self) -> None:
        """Tell the Hub if anything changed; if it cannot be told, the next look tries again."""
        wanted = NEVER if self.store.active() else self.after_s
        if wanted == self._told:
            return
        try:
            set_sleep_time(self.space_id, wanted, **self._where)
            self._told = wanted
        except HubError as error:
            if error.code != self._failed:  # once: a Space on free hardware refuses every time
                log.warning("the Space's time of sleep could not be set: %s", error)
            self._failed = error.code

    def _follow(self) -> None:
        self.look()
        while not self._stop.wait(self.look_s):
            self.look()
