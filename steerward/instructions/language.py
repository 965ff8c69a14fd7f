"""Which language a response is in, by script and by common words.

The published checkers ask the package langdetect, a model of letter triples; this is an own rule
in its place, made to be read. It tells a script that one language uses by its letters, and
languages that share a script by how many of a text's words are among their commonest. What it
cannot tell: a text of few common words, such as a list of names, which is of no known language
here; the share of a second language in a text; languages outside `LANGUAGES`, which pass for
their neighbours if they share common words; dialects and Latin transcriptions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

LANGUAGES: Mapping[str, str] = {
    "en": "English",
    "es": "Spanish",
    "pt": "Portuguese",
    "ar": "Arabic",
    "hi": "Hindi",
    "fr": "French",
    "ru": "Russian",
    "de": "German",
    "ja": "Japanese",
    "it": "Italian",
    "bn": "Bengali",
    "uk": "Ukrainian",
    "th": "Thai",
    "ur": "Urdu",
    "ta": "Tamil",
    "te": "Telugu",  # codespell:ignore
    "bg": "Bulgarian",
    "ko": "Korean",
    "pl": "Polish",
    "he": "Hebrew",
    "fa": "Persian",
    "vi": "Vietnamese",
    "ne": "Nepali",
    "sw": "Swahili",
    "kn": "Kannada",
    "mr": "Marathi",
    "gu": "Gujarati",
    "pa": "Punjabi",
    "ml": "Malayalam",
    "fi": "Finnish",
    "nl": "Dutch",
    "sv": "Swedish",
    "zh": "Chinese",
    "el": "Greek",
}
"""ISO 639-1 codes and names: those of the published rows, and four of our own at the end."""

_SCRIPTS: Mapping[str, str] = {
    "latin": "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ",
    "cyrillic": "Ѐ-ӿ",
    "arabic": "\u0620-\u064a\u0671-\u06d3",
    "devanagari": "\u0900-\u097f",
    "ja": "\u3041-\u30ff",
    "zh": "\u4e00-\u9fff",
    "ko": "\uac00-\ud7a3",
    "bn": "\u0980-\u09ff",
    "th": "\u0e00-\u0e7f",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",  # codespell:ignore
    "he": "\u05d0-\u05ea",
    "kn": "\u0c80-\u0cff",
    "gu": "\u0a80-\u0aff",
    "pa": "\u0a00-\u0a7f",
    "ml": "\u0d00-\u0d7f",
    "el": "\u0370-\u03ff",
}
_LETTERS = {name: re.compile(f"[{letters}]") for name, letters in _SCRIPTS.items()}

_COMMON: Mapping[str, Mapping[str, frozenset[str]]] = {
    script: {code: frozenset(common.split()) for code, common in languages.items()}
    for script, languages in {
        "latin": {
            "en": "the and of to is in that it for was with as are this be you have not or on at "
            "by from an will can your they we which has but i my their when if about would",
            "es": "el los las y en que del por una un con para es no su lo como más pero está al "
            "sus se son muy también la de este esta",
            "pt": "o os as e em que do da dos das um uma com para é não se por mais mas como ao "
            "seu sua são muito também você no na de",
            "fr": "le les des et en que du une un est pour dans pas sur au avec ce il qui la vous "
            "nous sont plus par ne je cette de à",
            "de": "der die das und nicht ein eine zu mit den von auf für im dem sich auch es "
            "ist "  # codespell:ignore
            "wie ich wir aus werden sind des",
            "it": "il gli e di che è un una per non con del della in sono la le si da come più "
            "anche ma alla nel lo i questo",
            "pl": "i w na z się nie to że jest do jak o dla są po od ale przez oraz może być za "
            "czy tym",
            "vi": "và là của có không một các cho được những trong với người này đã để khi tôi "
            "bạn cũng từ nhiều",
            "sw": "na ya wa kwa ni katika za la hii kama au hiyo si pia kuwa yake wake cha vya "
            "lakini ambayo watu",
            "fi": "ja on ei että se oli hän mutta ovat kun myös tai ole joka niin kuin sen voi "
            "tämä olla minä sinun",
            "nl": "de het een en van is dat niet op met voor zijn aan er om maar ook bij "
            "wordt deze naar ik",
            "sv": "och att det en på är av för med den till inte har de ett om var jag men "
            "från kan ska så",
        },
        "cyrillic": {
            "ru": "и в не на что с он как это по но из у за то от так для вы мы или быть если они "
            "она также является был",
            "uk": "і в не на що з він як це та до але із у за від так для ви ми або бути якщо "
            "вони вона також є був про",
            "bg": "и в не на че с той как това по но от за да се е са или ако те тя също беше във "
            "със към",
        },
        "arabic": {
            "ar": "في من على إلى أن هذا التي عن لا ما مع هو هي كان هذه الذي أو كل بين ذلك",
            "fa": "و در به از که این را با است برای آن یک می تا بر خود هم شده یا ما",
            "ur": "اور کے میں کی ہے کا سے کو یہ پر نے ہیں کہ اس ایک بھی نہیں تھا ہو لیے",
        },
        "devanagari": {
            "hi": "है और के में की का से को यह पर ने हैं कि इस एक भी नहीं था हो लिए",
            "mr": "आहे आणि या हे एक त्या नाही तो ती होते आहेत मध्ये साठी पण किंवा च्या करून हा ही",
            "ne": "छ र को मा यो हो पनि छन् लागि गर्न भने एक हुन्छ तर त्यो थियो गरेको का छैन",
        },
    }.items()
}

_WORD = re.compile(r"[^\W\d_]+")
_DEVANAGARI = re.compile(r"[\u0900-\u0963\u0970-\u097f]+")
_KANA_SHARE = 0.1
_LEAST_SHARE = 0.08
"""Fewer common words than this of all words, and no language is named. Ours."""


def script_of(response: str) -> str | None:
    """Return the script of most letters, by the name that `_SCRIPTS` has; None without letters."""
    counts = Counter({name: len(found.findall(response)) for name, found in _LETTERS.items()})
    # Japanese is written with Chinese characters too: some kana decide it.
    if counts["ja"] > _KANA_SHARE * (counts["ja"] + counts["zh"]):
        counts["ja"] += counts.pop("zh")
    ((script, count),) = counts.most_common(1)
    return script if count else None


def language_of(response: str) -> str | None:
    """Return the code of the language that most of a response is in; None where none is clear."""
    script = script_of(response)
    if script is None or script not in _COMMON:
        return script
    word = _DEVANAGARI if script == "devanagari" else _WORD
    found = Counter(word.findall(response.lower()))
    shares = {
        code: sum(count for one, count in found.items() if one in common) / (found.total() or 1)
        for code, common in _COMMON[script].items()
    }
    best, second = sorted(shares, key=lambda code: -shares[code])[:2]
    is_clear = shares[best] >= _LEAST_SHARE and shares[best] > shares[second]
    return best if is_clear else None


def is_in(response: str, code: str) -> bool:
    """Return whether a response is in a language; one without letters counts as being in any.

    So does the published checker where langdetect finds no letters. A response whose language
    is not clear is in none.
    """
    return not any(map(str.isalpha, response)) or language_of(response) == code


def may_be_english(response: str) -> bool:
    """Return whether a response is in English, or has too few common words to be told."""
    if any(map(str.isalpha, response)) and script_of(response) != "latin":
        return False
    return language_of(response) in {"en", None}
