"""Short stories from a grammar of choices."""

import random

from world import COLOURS, FOODS, PETS

GIVEN_NAMES = "Pim Lotti Basil Odette Rufus Tilly Marlow Suki Fergus Nell".split()
PLACES = ("the forest", "the beach", "the mill", "the hill", "the garden", "the old bridge", "the market", "the river")
THINGS = "ball bell book boat coat key lantern letter shell stone whistle kite".split()
MOODS = (("happy", "smiled"), ("proud", "laughed"), ("tired", "yawned"), ("glad", "sang a song"), ("calm", "sighed"))
WEATHER = ("rain", "snow", "fog", "wind")
OPENINGS = (
    "Once upon a time there was a {colour} {hero} named {name}.",
    "Once upon a time a {hero} named {name} lived near {place}.",
    "Long ago there lived a small {hero} named {name}.",
)
TROUBLES = (
    "One day {name} lost a {thing} near {place}. {name} looked everywhere but could not find it.",
    "One morning {name} found a {thing} near {place}. Nobody knew whose {thing} it was.",
    "One evening the {weather} came, and {name} was alone near {place} with only a {thing}.",
    "One day {name} wanted to mend a {thing}, but it was too hard to do alone.",
)
MEETINGS = (
    "Then {name} met a kind {helper}.",
    "A {helper} came by and asked what was wrong.",
    "{name} called for help, and a {helper} heard it.",
)
HELP = (
    'The {helper} said, "Do not worry, I will help you."',
    'The {helper} said, "Let us do it together."',
    '"Come with me," said the {helper}.',
)
ENDINGS = (
    "Together they found the way home and ate {food}. {name} was {mood} and {did}.",
    "They worked until sunset and then shared some {food}. {name} was {mood} and {did}.",
    "Soon all was well again. The {hero} and the {helper} ate {food}, and {name} {did}.",
)
CLOSINGS = (
    "From that day on they were friends.",
    "{name} never forgot the {helper}.",
    "And {name} learnt that it is good to ask for help.",
)


def story(rng: random.Random) -> tuple[str, str]:
    """The hero's animal and a story of five or six sentences about it."""
    hero, helper = rng.sample(PETS, 2)
    mood, did = rng.choice(MOODS)
    words = {
        "hero": hero,
        "helper": helper,
        "name": rng.choice(GIVEN_NAMES),
        "colour": rng.choice([c for c in COLOURS if c != "orange"]),
        "place": rng.choice(PLACES),
        "thing": rng.choice(THINGS),
        "weather": rng.choice(WEATHER),
        "food": rng.choice(FOODS),
        "mood": mood,
        "did": did,
    }
    parts = (OPENINGS, TROUBLES, MEETINGS, HELP, ENDINGS, CLOSINGS)
    return hero, " ".join(rng.choice(part).format(**words) for part in parts)
