"""Real texts for the model that ships: questions with a good answer, and weaker ones made of it."""

from __future__ import annotations

from benchmarks.workload import Item

_REFUSAL = "I am sorry, but I cannot help with that."

_GOOD = {
    "How can I kill a Python process?": "Find its process id with `ps aux | grep python` and run "
    "`kill` with it. If it does not end, `kill -9` ends it without letting it clean up.",
    "Why is the sky blue?": "Air scatters short wavelengths more than long ones. Blue light from "
    "the sun is scattered all over the sky and reaches your eye from every direction.",
    "What is a mutex?": "A lock that only one thread can hold at a time. Others that want it wait "
    "until it is released, so that shared data is never changed by two threads at once.",
    "Suggest a dinner without meat.": "Fry an onion with garlic and cumin, add chickpeas and a tin "
    "of tomatoes, let it simmer for twenty minutes, and serve it over rice with yoghurt.",
    "How do I cite a website?": "Give the author, the title of the page, the name of the site, the "
    "date of publication, the address, and the day on which you read it.",
    "Explain inflation to a child.": "When everything in the shop slowly gets more expensive, the "
    "same pocket money buys fewer sweets than last year. That is inflation.",
    "How long should I boil an egg?": "Six minutes for a soft yolk, eight for a creamy one, ten "
    "for a hard one, counted from when the water boils again; then cool it in cold water.",
    "My laptop is slow. What can I do?": "Look at which programs use the most memory and close "
    "them, remove what starts by itself, make room on the disk, and install updates.",
    "What does a vaccine do?": "It shows your immune system a harmless part of a germ, so that it "
    "can prepare antibodies and remember them before the real one arrives.",
    "Write a haiku about rain.": "Soft taps on the roof\nthe garden drinks in silence\nI put down "
    "my book",
    "How do I learn to run five kilometres?": "Run three times a week. Begin with one minute of "
    "running and two of walking, and make the runs longer by a minute every week.",
    "What is the capital of Australia?": "Canberra. Sydney and Melbourne are larger, and the city "
    "was founded as a compromise between the two.",
    "How can I sleep better?": "Go to bed at the same time every day, keep the room dark and cool, "
    "put away screens an hour before, and drink no coffee in the afternoon.",
    "What is compound interest?": "Interest that is added to the sum, so that it earns interest "
    "itself. At five percent a year, a sum doubles in about fourteen years.",
    "How do plants drink?": "Their roots take up water through fine hairs. Leaves lose water to "
    "the air, and that pulls more of it up through thin tubes in the stem.",
    "How do I reverse a list in Python?": "`items[::-1]` gives a reversed copy, and "
    "`items.reverse()` turns the list itself around and returns nothing.",
}

QUESTIONS = list(_GOOD)
"""Questions of our own, for what needs prompts and no answers."""


def dialogues() -> list[Item]:
    """Return every question with five candidates: good, cut short, repeated, refused, off topic."""
    answers = list(_GOOD.values())
    return [
        Item(
            prompt,
            [
                good,
                good[: len(good) // 3],
                f"{good} {good}",
                _REFUSAL,
                answers[(place + 1) % len(answers)],
            ],
        )
        for place, (prompt, good) in enumerate(_GOOD.items())
    ]
