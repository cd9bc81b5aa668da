"""Computing on the Hub: Spaces that sleep, Jobs that train. Every call bounded, every error in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from talker.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

API_S = 120.0
ENDED = ("COMPLETED", "CANCELED", "ERROR", "DELETED")


def require_token(api: HfApi) -> None:
    """Raise before any request if nobody is signed in. Unlike that of ``publish`` it loads no PyTorch.

    Raises:
        HubError: ``hub.no_token``.
    """
    from huggingface_hub import get_token

    from talker.hub.transport import no_token

    if api.token is False or not (api.token or get_token()):
        raise no_token()


def set_sleep_time(
    space_id: str, seconds: int, *, token: str | None = None, endpoint: str | None = None
) -> None:
    """After how many seconds without a visit a Space sleeps; -1 for never.

    Raises:
        HubError: ``hub.unauthorized``, ``.forbidden``, ``.offline``, ...
    """
    from huggingface_hub import HfApi

    from talker.hub.transport import limits

    with limits(API_S):
        HfApi(endpoint=endpoint, token=token).set_space_sleep_time(space_id, seconds)


@dataclass(frozen=True)
class Price:
    """What a machine of the Hub costs."""

    flavor: str
    name: str
    """For people: "Nvidia L4"."""
    usd_a_minute: float
    gpu: str = ""
    """With its memory; empty for a machine without."""

    def at_most(self, minutes: float, attempts: int = 1) -> float:
        """US dollars for ``minutes`` of every attempt: the most a Job can cost, not what it will."""
        return self.usd_a_minute * minutes * attempts


@dataclass(frozen=True)
class CloudJob:
    """What to run, where, and what it may cost."""

    image: str
    """Docker image, or ``hf.co/spaces/owner/name``."""
    command: tuple[str, ...]
    flavor: str
    timeout_s: int
    """Always given: the Hub's own default of half an hour ends a training in its middle."""
    attempts: int
    name: str
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    labels: dict[str, str] = field(default_factory=dict)
    bucket: str = ""
    """``owner/name`` of a bucket that all attempts see at ``mount``."""
    mount: str = "/work"


@dataclass(frozen=True)
class CloudState:
    """Where a Job of the Hub stands."""

    id: str
    stage: str
    """``SCHEDULING``, ``RUNNING``, ``COMPLETED``, ``CANCELED``, ``ERROR`` or ``DELETED``."""
    message: str
    url: str
    running_s: float = 0.0

    @property
    def ended(self) -> bool:
        """No further attempt follows."""
        return self.stage in ENDED


class Compute:
    """Hugging Face Jobs of one account.

    Args:
        namespace: Account that pays; always given, or the library asks with another token than this one.
        token: The caller's own, allowed to run Jobs; None uses the sign-in of this machine.
        endpoint: Address of the server; ``HF_ENDPOINT`` or huggingface.co by default.
    """

    def __init__(self, namespace: str, *, token: str | None = None, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi

        self.namespace = namespace
        self._api: HfApi = HfApi(endpoint=endpoint, token=token, library_name="talker")

    def prices(self) -> list[Price]:
        """The machines on offer, the cheapest first.

        Raises:
            HubError: ``hub.offline``, ...
        """
        from talker.hub.transport import limits

        per_minute = {"second": 60.0, "minute": 1.0, "hour": 1 / 60}
        with limits(API_S):
            listed = self._api.list_jobs_hardware()
        found = [
            Price(
                str(h.name),
                h.pretty_name,
                h.unit_cost_usd * per_minute[h.unit_label],
                f"{h.accelerator.model}, {h.accelerator.vram}" if h.accelerator else "",
            )
            for h in listed
            if h.unit_label in per_minute
        ]
        return sorted(found, key=lambda price: price.usd_a_minute)

    def price(self, flavor: str) -> Price:
        """What one kind of machine costs.

        Raises:
            HubError: ``hub.hardware``: there is no such machine.
        """
        prices = self.prices()
        for price in prices:
            if price.flavor == flavor:
                return price
        raise HubError(
            "hub.hardware",
            f"The Hub has no machine {flavor[:40]!a}.",
            expected=f"One of {', '.join(p.flavor for p in prices)}.",
        )

    def run(self, job: CloudJob) -> CloudState:
        """Start a Job; makes its bucket first, private.

        Raises:
            HubError: ``hub.payment``: the account has no credit; ``.unauthorized``, ``.forbidden``, ...
        """
        from huggingface_hub import Volume

        from talker.hub.transport import limits, status_of

        require_token(self._api)
        volumes = [Volume(type="bucket", source=job.bucket, mount_path=job.mount)] if job.bucket else None
        with limits(API_S):
            try:
                if job.bucket:
                    self._api.create_bucket(job.bucket, private=True, exist_ok=True)
                info = self._api.run_job(
                    image=job.image,
                    command=list(job.command),
                    env=dict(job.env),
                    secrets=dict(job.secrets),
                    flavor=job.flavor,
                    timeout=job.timeout_s,
                    attempts=job.attempts,
                    name=job.name,
                    labels=dict(job.labels),
                    volumes=volumes,
                    namespace=self.namespace,
                )
            except OSError as error:
                if status_of(error) == 402:
                    raise HubError(
                        "hub.payment",
                        f"The account {self.namespace} has no credit for Jobs.",
                        expected="A positive balance: Jobs are paid by the minute.",
                        todo="Add credit on the billing page of the Hub, or train on this machine.",
                    ) from None
                raise
        return _state(info)

    def state(self, cloud_id: str) -> CloudState:
        """Where a Job stands.

        Raises:
            HubError: ``hub.not_found``, ``.offline``, ...
        """
        from talker.hub.transport import limits

        with limits(API_S):
            return _state(self._api.inspect_job(job_id=cloud_id, namespace=self.namespace))

    def find(self, label: str, value: str) -> CloudState | None:
        """The newest Job with this label: so that starting one twice is noticed.

        Raises:
            HubError: ``hub.offline``, ...
        """
        from talker.hub.transport import limits

        with limits(API_S):
            jobs = list(self._api.list_jobs(labels={label: value}, namespace=self.namespace))
        newest = sorted(jobs, key=lambda info: info.created_at.timestamp() if info.created_at else 0.0)
        return _state(newest[-1]) if newest else None

    def logs(self, cloud_id: str, *, tail: int = 200) -> list[str]:
        """The last lines a Job printed.

        Raises:
            HubError: ``hub.not_found``, ``.offline``, ...
        """
        from talker.hub.transport import limits

        with limits(API_S):
            lines = self._api.fetch_job_logs(job_id=cloud_id, namespace=self.namespace, tail=tail)
            return [str(line)[:2000] for line in lines][-tail:]

    def cancel(self, cloud_id: str) -> None:
        """End a Job; nothing to do if it has ended.

        Raises:
            HubError: ``hub.offline``, ``.forbidden``, ...
        """
        from talker.hub.transport import limits

        with limits(API_S):
            self._api.cancel_job(job_id=cloud_id, namespace=self.namespace)


def _state(info: JobInfo) -> CloudState:
    running = info.durations.running_secs if info.durations else None
    stage = str(getattr(info.status.stage, "value", info.status.stage))
    return CloudState(info.id, stage, str(info.status.message or "")[:500], info.url, float(running or 0))
