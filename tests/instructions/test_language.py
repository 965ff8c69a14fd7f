"""Languages are told by script and common words; what is unclear is said to be."""

from __future__ import annotations

import pytest

from steerward.instructions import LANGUAGES, language_of

TEXTS = {
    "en": "The cat is on the table and it will not move for you.",
    "es": "El gato está en la mesa y no se mueve para los niños.",
    "pt": "O gato está em cima da mesa e não sai do lugar para uma pessoa.",
    "ar": "القط على الطاولة في هذا البيت ولا يتحرك من المكان",
    "hi": "बिल्ली मेज पर है और वह नहीं हिलती है।",
    "fr": "Le chat est sur la table et il ne veut pas bouger pour vous.",
    "ru": "Кошка сидит на столе и не хочет уходить, как вы это видите.",
    "de": "Die Katze und der Hund wollen nicht von dem Tisch auf den Boden.",
    "ja": "猫は机の上にいて、動きません。",
    "it": "Il gatto è sul tavolo e non si muove per gli altri che sono qui.",
    "bn": "বিড়ালটি টেবিলের উপর আছে।",
    "uk": "Кішка сидить на столі та не хоче йти, як ви це бачите, або ні.",
    "th": "แมวอยู่บนโต๊ะและไม่ยอมขยับ",
    "ur": "بلی میز پر ہے اور وہ نہیں ہلتی ہے۔",
    "ta": "பூனை மேசையின் மேல் உள்ளது.",
    "te": "పిల్లి బల్ల మీద ఉంది.",  # codespell:ignore
    "bg": "Котката е на масата и не иска да се движи за вас, но това са те.",
    "ko": "고양이가 탁자 위에 있고 움직이지 않습니다.",
    "pl": "Kot jest na stole i nie chce się ruszyć, ale to jest jego dom.",
    "he": "החתול על השולחן והוא לא זז.",
    "fa": "گربه روی میز است و از آن جا تکان نمی خورد که با این همه خوب است",
    "vi": "Con mèo ở trên bàn và không di chuyển cho bạn với những người này.",
    "ne": "बिरालो टेबुल माथि छ र त्यो सर्दैन, यो राम्रो हो।",
    "sw": "Paka yuko juu ya meza na hataki kuondoka kwa ajili ya watu.",
    "kn": "ಬೆಕ್ಕು ಮೇಜಿನ ಮೇಲೆ ಇದೆ.",
    "mr": "मांजर टेबलावर आहे आणि ते हलत नाही.",
    "gu": "બિલાડી ટેબલ પર છે.",
    "pa": "ਬਿੱਲੀ ਮੇਜ਼ ਉੱਤੇ ਹੈ।",
    "ml": "പൂച്ച മേശപ്പുറത്താണ്.",
    "fi": "Kissa on pöydällä ja se ei ole valmis, mutta hän sen voi tehdä.",
    "nl": "De kat is op de tafel en het dier kan niet van zijn plaats.",
    "sv": "Katten är på bordet och den kan inte gå till en annan plats.",
    "zh": "猫在桌子上，它不想动。",
    "el": "Η γάτα είναι πάνω στο τραπέζι.",
}


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_is_told(code: str) -> None:
    assert language_of(TEXTS[code]) == code
    assert language_of(TEXTS[code].upper()) == code


@pytest.mark.parametrize("text", ["", "1 + 1", "Lumina Aquilina Verdantia", "Հայերեն"])
def test_unclear_text_has_no_language(text: str) -> None:
    assert language_of(text) is None
