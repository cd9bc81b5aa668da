"""Where the Talk page shows things: one of the waiting avatar, the live picture, the finished clip; and words below."""

from __future__ import annotations

from collections.abc import Sequence

from talker.studio import TalkChunk, TalkNote, TalkWaiting
from talker.studio.clips import Clip
from talker.ui import html
from talker.ui.words import say

# Several clips in one go are made without a live picture: each would start another stream. Until the first piece
# can be played, the waiting avatar stays.
SHOW_LIVE = """(source) => {
  const stage = document.querySelector('#tk-stage');
  stage.classList.remove('tk-show-final', 'tk-idle', 'tk-live', 'tk-playing');
  stage.classList.add(source === 'several' ? 'tk-idle' : 'tk-live');
  if (!stage.tkWatched) {
    stage.tkWatched = true;
    stage.addEventListener('loadeddata', (e) => {
      if (e.target.closest('#tk-live')) stage.classList.add('tk-playing');
    }, true);
  }
  if (window.innerWidth < 900) stage.scrollIntoView({behavior: 'smooth'});
}"""
# The live picture may still be playing when the last frame is done: let it end before the finished clip takes over.
SHOW_FINAL = """() => {
  const stage = document.querySelector('#tk-stage');
  const live = document.querySelector('#tk-live video');
  const swap = () => {
    if (stage.classList.contains('tk-show-final')) return;
    stage.classList.remove('tk-live', 'tk-idle', 'tk-playing');
    stage.classList.add(document.querySelector('#tk-final video') ? 'tk-show-final' : 'tk-idle');
  };
  const watched = stage.classList.contains('tk-live') && live && live.readyState >= 2;
  if (!watched || live.ended || live.error) { swap(); return; }
  live.addEventListener('ended', swap, {once: true});
  live.addEventListener('error', swap, {once: true});
}"""
SHOW_FINAL_NOW = """() => {
  const stage = document.querySelector('#tk-stage');
  document.querySelector('#tk-live video')?.pause();
  stage.classList.remove('tk-live', 'tk-idle', 'tk-playing'); stage.classList.add('tk-show-final');
}"""
SHOW_IDLE = """() => {
  const stage = document.querySelector('#tk-stage');
  document.querySelectorAll('#tk-live video, #tk-final video').forEach((v) => v.pause());
  stage.classList.remove('tk-live', 'tk-show-final', 'tk-playing'); stage.classList.add('tk-idle');
}"""
HALTED = "() => { window.tkHalted = Date.now(); }"
WAS_HALTED = "() => [Date.now() - (window.tkHalted || 0) < 15000]"
# The player adds its track a moment after the clip is there.
CAPTIONS = """(on) => {
  const set = () => document.querySelectorAll('#tk-final video').forEach((video) => {
    for (const track of video.textTracks) track.mode = on ? 'showing' : 'hidden';
  });
  set(); [200, 600, 1500].forEach((later) => setTimeout(set, later));
}"""
# The address of the file is in the button a moment after the value.
CLICK_ZIP = "() => { setTimeout(() => document.querySelector('#tk-zip-file')?.click(), 200); }"

DONE = "{n} of {total} clips are done. Each is labelled and signed as AI-generated."


def status(text: str) -> str:
    """A quiet line."""
    return f'<div class="tk-status" role="status">{html.esc(say(text))}</div>'


def under_way(
    made: TalkChunk | TalkNote | TalkWaiting, before: str = "", *, part: float = 0, of: int = 1
) -> str:
    """What a rendering is at.

    Args:
        made: Its last word.
        before: Comes before it, for example ``2 of 5``.
        part: How many of the clips are finished.
        of: How many there will be.
    """
    if isinstance(made, TalkWaiting):
        return _bar(say("Waiting"), _waiting(made), None)
    if isinstance(made, TalkChunk):
        share: float | None = made.done_s / max(made.total_s, 0.04)
        words = say("Rendering")
        right = say("{done:.0f} of {total:.0f} s", done=made.done_s, total=made.total_s)
    else:
        share, words, right = made.share, say(made.message), ""
    if of > 1:
        share = (part + min(1.0, share or 0)) / of
    percent = None if share is None else min(100, round(100 * share))
    return _bar(before or words, words if before else right, percent)


def _waiting(made: TalkWaiting) -> str:
    if made.before == 1:
        others = say("1 rendering is before yours")
    else:
        others = say("{n} renderings are before yours", n=made.before)
    if made.about_s is None:
        return others
    short = made.about_s < 60
    about = say("less than a minute") if short else say("about {n} min", n=round(made.about_s / 60))
    return f"{others}, {about}"


def _bar(left: str, right: str, percent: float | None) -> str:
    return (
        f'<div class="tk-progress" role="status"><div class="tk-bar-label"><b>{html.esc(left)}</b>'
        f"<span>{html.esc(right)}</span></div>{html.bar(percent)}</div>"
    )


def finished(clip: Clip) -> str:
    """What a finished clip is."""
    words = [f"{html.duration(clip.seconds)}.", say("Labelled and signed as AI-generated.")]
    if clip.download != clip.video:
        words.append(say("The download is transparent (ProRes 4444); the player shows chequers instead."))
    return status(" ".join(words))


def summary(clips: Sequence[Clip], failures: Sequence[tuple[str, str]]) -> str:
    """The end of several clips: how many there are, and which are not, with why."""
    total = len(clips) + len(failures)
    words = say(DONE, n=len(clips), total=total)
    if not failures:
        return status(words)
    lines = "".join(f"<li><b>{html.esc(title)}</b>: {html.esc(why)}</li>" for title, why in failures)
    return (
        f'<div class="tk-banner tk-warning" role="status">{html.icon("warning")}<div>'
        f'<p>{html.esc(words)} {say("Not done:")}</p><ul class="tk-failures">{lines}</ul></div></div>'
    )
