"""Texts in which prompt and answer are joined, taken apart for server and adapters alike."""

from steerward.protocol.transcripts.markups import TemplateName, known_template, without_leftovers
from steerward.protocol.transcripts.reading import read_conversation, read_transcript

__all__ = [
    "TemplateName",
    "known_template",
    "read_conversation",
    "read_transcript",
    "without_leftovers",
]
