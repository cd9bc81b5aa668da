"""Where a video comes from, and who agreed: consent record, visible label, signed and plain marks.

Three marks, because each is lost in another way: the label on the frames survives any copy, the plain tags
survive a re-encode by most tools, the signed C2PA manifest proves that nothing was changed since. A mark that
cannot be written fails the generation. None of them resists somebody determined to remove it.
"""

from talker.provenance.consent import CONSENT_TEXT, CONSENT_VERSION, new_consent, require
from talker.provenance.label import LABEL, label_visible, stamp_frames
from talker.provenance.marks import PLAIN_MARK, inspect, plain_metadata, sign

__all__ = [
    "CONSENT_TEXT",
    "CONSENT_VERSION",
    "LABEL",
    "PLAIN_MARK",
    "inspect",
    "label_visible",
    "new_consent",
    "plain_metadata",
    "require",
    "sign",
    "stamp_frames",
]
