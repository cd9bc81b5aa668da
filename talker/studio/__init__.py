"""What the app may do; ``app.py`` calls nothing else."""

from talker.studio.config import LOCAL, StudioConfig, default_home
from talker.studio.studio import Studio
from talker.studio.talking import TalkChunk, TalkDone

__all__ = ["LOCAL", "Studio", "StudioConfig", "TalkChunk", "TalkDone", "default_home"]
