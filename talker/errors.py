"""Every error a user can meet: what was found, what was expected, what to do."""

from __future__ import annotations


class TalkerError(Exception):
    """Base of all user errors. Bugs are asserts, never this.

    Attributes:
        code: Stable dotted identifier, e.g. ``video.empty``; tests and the app match on it.
        found: What was found, one sentence with its figures.
        expected: What was expected, one sentence; may be empty.
        todo: What the user can do, one sentence; may be empty.
    """

    def __init__(self, code: str, found: str, *, expected: str = "", todo: str = "") -> None:
        super().__init__(code, found, expected, todo)
        self.code = code
        self.found = found
        self.expected = expected
        self.todo = todo

    def __str__(self) -> str:
        """One message a person can act on; never a path of the server."""
        return " ".join(part for part in (self.found, self.expected, self.todo) if part)

    def __reduce__(self) -> tuple:
        """Survive pickling, so that a child process can raise in its parent."""
        return _rebuild, (type(self), self.code, self.found, self.expected, self.todo)


def _rebuild(kind: type[TalkerError], code: str, found: str, expected: str, todo: str) -> TalkerError:
    return kind(code, found, expected=expected, todo=todo)


class VideoError(TalkerError):
    """The clip cannot be read, or is not a video we accept."""


class AudioError(TalkerError):
    """The sound cannot be read or used."""


class SpeechError(TalkerError):
    """Text cannot be spoken."""


class BusyError(TalkerError):
    """Too much is being done at this moment."""


class TrackingError(TalkerError):
    """The face or the head cannot be followed through the clip."""


class DatasetError(TalkerError):
    """A dataset folder is missing, incomplete or of another version."""


class ConfigError(TalkerError):
    """An option is out of its range or unknown."""


class BackendError(TalkerError):
    """A renderer cannot run on this machine."""


class CheckpointError(TalkerError):
    """An avatar or a training state is damaged, foreign or of another version."""


class TrainingError(TalkerError):
    """Training cannot go on."""


class JobError(TalkerError):
    """A job does not exist, or cannot do what was asked in its state."""


class HubError(TalkerError):
    """The Hub refused, or cannot be reached."""


class ConsentError(TalkerError):
    """The declaration of consent is missing or not the current one."""


class ProvenanceError(TalkerError):
    """A mark of origin cannot be written; the generation fails with it."""
