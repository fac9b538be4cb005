"""A written dialogue as the ingest would have it: every utterance with its words, and its clip if it has one.

It goes through the same Conversation as a call, in the order in which it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cmath_stream.sources.clips import NOTHING, Clip
from cmath_stream.sources.dialogues import Spoken, Written
from cmath_stream.sources.names import distinct
from realtime.conversation import Conversation, ConversationConfig
from realtime.messages import SAMPLE_RATE_HZ, Caption, Message

Look = Callable[[Spoken, float, float], Clip]  # an utterance, its start, its greatest length (s) → its clip

_LONGEST_S = 60.0  # of a clip whose utterance has no times
_WORD_S = 0.35  # of an utterance that has neither times nor a clip
_SHORTEST_S = 1.0


def messages(
    session_id: str, dialogue: Written, config: ConversationConfig, look: Look | None
) -> Iterator[Message]:
    """The session from start to close; `look` None = there are words alone.

    Times are the source's own where it has them. What has no start begins where the one before it ended; what
    has no end, or none after its start, lasts as long as its clip, or a third of a second a word.
    """
    conversation = Conversation(session_id, config, start_unix_ms=0)
    yield from conversation.start(dialogue.name, None, "media")
    names = distinct(each.speaker for each in dialogue.utterances)
    begin_s = min((each.start_s or 0.0 for each in dialogue.utterances), default=0.0)
    for name in names.values():
        yield from conversation.join(name, begin_s, audio=False, video=look is not None, captions=True)
    end_s = now_s = 0.0
    for each in dialogue.utterances:
        start_s = end_s if each.start_s is None else each.start_s
        given_s = 0.0 if each.end_s is None else each.end_s - start_s
        clip = look(each, start_s, given_s if given_s > 0 else _LONGEST_S) if look else NOTHING
        if given_s > 0:
            end_s = start_s + given_s
        elif len(clip.pcm):
            end_s = start_s + len(clip.pcm) / SAMPLE_RATE_HZ
        else:
            end_s = start_s + max(_SHORTEST_S, _WORD_S * len(each.text.split()))
        now_s = max(now_s, end_s)
        words = Caption(start_s, end_s, each.text)
        yield from conversation.push_utterance(names[each.speaker], words, clip.pcm, clip.pictures, now_s)
    yield from conversation.close(now_s, "end_of_file")
