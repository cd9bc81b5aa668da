"""A program of the operator's hears of the end of every job: one POST to the address in ``TALKER_WEBHOOK``.

It learns which job and how it ended, and nothing about the person: no name, no owner, no picture. The job is over
by then; the worker's next one waits ten seconds at most. It is told once, and what it answers is only logged.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException

from talker.jobs.job import JobState

log = logging.getLogger(__name__)

VARIABLE = "TALKER_WEBHOOK"
PATIENCE_S = 10.0


def tell(job_id: str, state: JobState) -> None:
    """Send ``{"event": "job.ended", "job": ..., "state": ..., "at": ...}``, if there is anybody to send it to."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    if not address.startswith(("http://", "https://")):
        log.warning("%s is no address that starts with http:// or https://; nobody was told", VARIABLE)
        return
    said = {"event": "job.ended", "job": job_id, "state": str(state), "at": datetime.now(UTC).isoformat()}
    try:
        request = urllib.request.Request(
            address, json.dumps(said).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S):
            pass
    except (OSError, ValueError, HTTPException) as error:  # URLError, HTTPError and time-outs are OSErrors
        # The address may carry a secret: it stays out of the log.
        log.warning("the end of job %s could not be told: %s", job_id, type(error).__name__)
