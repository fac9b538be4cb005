"""ELAN's files: tiers to speakers, slots to times, and one line for what is none."""

from __future__ import annotations

import pytest

from realtime import eaf
from realtime.eaf import Annotation
from realtime.errors import MediaError

TEXT = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
 <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
 <TIME_ORDER>
  <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/>
  <TIME_SLOT TIME_SLOT_ID="ts2"/>
  <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="4000"/>
  <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="500"/>
  <TIME_SLOT TIME_SLOT_ID="ts5" TIME_VALUE="900"/>
 </TIME_ORDER>
 <TIER LINGUISTIC_TYPE_REF="utterance" PARTICIPANT="Anna Müller" TIER_ID="words-anna">
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
   <ANNOTATION_VALUE>Well,
   hello.</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
   <ANNOTATION_VALUE/></ALIGNABLE_ANNOTATION></ANNOTATION>
 </TIER>
 <TIER LINGUISTIC_TYPE_REF="utterance" TIER_ID="Ben">
  <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts4" TIME_SLOT_REF2="ts5">
   <ANNOTATION_VALUE>Hi &amp; bye</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
 </TIER>
 <TIER LINGUISTIC_TYPE_REF="emotion" PARENT_REF="Ben" PARTICIPANT="Ben" TIER_ID="emotion">
  <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a3">
   <ANNOTATION_VALUE>joy</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
 </TIER>
</ANNOTATION_DOCUMENT>
"""


def test_tiers_slots_and_words_as_elan_shows_them() -> None:
    assert eaf.parse(TEXT) == [
        Annotation("Ben", 500, 900, "Hi & bye"),
        Annotation("Anna Müller", 1000, 2500, "Well, hello."),
        Annotation("Anna Müller", 2500, 4000, ""),
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("</ANNOTATION_DOCUMENT>", "", "not XML"),
        ("ANNOTATION_DOCUMENT", "html", "begins with <html>"),
        ('TIME_VALUE="500"', 'TIME_VALUE="-5"', "'-5' is not a time"),
        ('TIME_VALUE="1000"', "", "time slot 'ts1' has no time"),
        ('TIME_SLOT_REF2="ts5"', 'TIME_SLOT_REF2="ts4"', "tier 'Ben': annotation 'Hi & bye' has no length"),
        ('TIME_SLOT_REF1="ts4"', 'TIME_SLOT_REF1="ts9"', "tier 'Ben': annotation 'Hi & bye' has no length"),
    ],
)
def test_what_is_none_is_said_in_one_line(old: str, new: str, said: str) -> None:
    with pytest.raises(MediaError) as raised:
        eaf.parse(TEXT.replace(old, new), "talk.eaf")
    assert said in str(raised.value) and str(raised.value).startswith("talk.eaf")
    assert "\n" not in str(raised.value)


def test_entities_that_grow_are_refused() -> None:
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE d [<!ENTITY l0 "ha">{laughs}]><ANNOTATION_DOCUMENT>&l11;</ANNOTATION_DOCUMENT>'
    with pytest.raises(MediaError, match="not XML"):
        eaf.parse(bomb)
