"""What the app may do; ``app.py`` calls nothing else."""

from talker.studio.config import LOCAL, StudioConfig, default_home
from talker.studio.line import TalkWaiting
from talker.studio.notes import TalkNote
from talker.studio.studio import Studio
from talker.studio.talking import Manner, TalkChunk, TalkDone

__all__ = [
    "LOCAL",
    "Manner",
    "Studio",
    "StudioConfig",
    "TalkChunk",
    "TalkDone",
    "TalkNote",
    "TalkWaiting",
    "default_home",
]
