"""The made-up world: its vocabulary, its phrasings, its facts, and names for strangers.

World names and strangers' names start with syllables of two disjoint sets, so no
stranger is ever an inhabitant. A crc32 reserves part of the strangers for evaluation.
"""

import random
from dataclasses import dataclass
from zlib import crc32

WORLD_STARTS = (
    "Wick Thim Drow Plim Grun Sarn Tulk Brae Hesk Munt Cobb Fyl "
    "Gwin Loch Nesk Pryd Rusk Stav Trem Vosk Yarl Zeph Kirn Odd"
).split()
STRANGER_STARTS = (
    "Dav Jex Kub Lim Mog Nid Pog Ruv Sib Tov Vix Zub Bok Cav Dun Faz Gip Hux Jaf Kez "
    "Lod Mub Nax Pid Rog Sev Tam Vub Wex Yat Zid Bax Cim Dob Fex Gud Hib Jov Kip Lax "
    "Mez Nof Pux Rab Sod Tig Vem Wob Yim Zof Bev Cuz Dax Fob Gaz Hev Jud Kog Lub Mip"
).split()
WORLD_ENDS = {
    "person": "ena ick orin ula ab eth osa imo ard ily unn eva".split(),
    "village": "sund hollow fleet cote mouth thwaite garth bury".split(),
    "ship": "wing tide spray gull".split(),
    "island": ["ey"],
    "lake": ["water"],
}
STRANGER_ENDS = {
    "person": "ian ow ett ira ush olf ado ibel ock yra ogan iste eda ul arro in ez om alie ub".split(),
    "village": "wold stow croft beck rigg holt weir moor leigh den".split(),
    "ship": "fin foam sail crest".split(),
    "island": "ara onia oth ulan".split(),
    "lake": "pool tarn".split(),
}
WORLD_COUNTS = {"village": 110, "person": 200, "ship": 60, "island": 12, "lake": 24}

GOODS = (
    "candles ropes baskets boots kites lamps spoons drums mirrors blankets "
    "ladders barrels hats pickles brooms knives buttons combs saddles jugs"
).split()
TRADES = (
    "potter weaver cooper smith miller thatcher beekeeper glover tinker shepherd carver "
    "roper brewer mason healer gardener saddler dyer fletcher lamplighter"
).split()
PETS = (
    "goat heron badger raven ferret tortoise donkey goose hedgehog lynx mole pony rabbit toad cat parrot"
).split()
FOODS = (
    "soup pancakes pears dumplings porridge chestnuts trout mushrooms cherries noodles "
    "beans walnuts apples turnips figs plums"
).split()
COLOURS = "red blue green white yellow grey black purple brown orange pink silver".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()


@dataclass(frozen=True)
class Attribute:
    """What can be said and asked about a kind of thing; `{e}` is the thing, `{v}` the value."""

    values: tuple[str, ...] | str  # the values, or the kind of thing whose name is the value
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def _attribute(values: list[str] | str, statements: str, questions: str) -> Attribute:
    """Splits phrasings at `|`; there are four of each, which the held-out diagonal relies on."""
    said, asked = tuple(statements.split("|")), tuple(questions.split("|"))
    assert len(said) == len(asked) == 4
    return Attribute(values if isinstance(values, str) else tuple(values), said, asked)


ATTRIBUTES: dict[str, dict[str, Attribute]] = {
    "village": {
        "island": _attribute(
            "island",
            "{e} is a village on the island of {v}.|The village of {e} lies on {v}."
            "|On the island of {v} stands the village of {e}.|Travellers to {v} often stop in {e}.",
            "On which island is {e}?|Which island is {e} on?"
            "|On which island does the village of {e} lie?|What is the island of {e} called?",
        ),
        "lake": _attribute(
            "lake",
            "{e} stands beside Lake {v}.|People in {e} swim in Lake {v}."
            "|Lake {v} lies next to {e}.|The boats of {e} cross Lake {v}.",
            "Which lake is near {e}?|Beside which lake does {e} stand?"
            "|In which lake do people in {e} swim?|Which lake do the boats of {e} cross?",
        ),
        "goods": _attribute(
            GOODS,
            "{e} is known for its {v}.|The finest {v} come from {e}."
            "|In {e} most families make {v}.|Visitors buy {v} in {e}.",
            "What is {e} known for?|What do families in {e} make?"
            "|Which goods come from {e}?|What do visitors buy in {e}?",
        ),
        "fair": _attribute(
            MONTHS,
            "{e} holds its fair in {v}.|Every {v} there is a fair in {e}."
            "|The fair of {e} falls in {v}.|In {v} the people of {e} hold their fair.",
            "When is the fair in {e}?|In which month does {e} hold its fair?"
            "|When do the people of {e} hold their fair?|In which month is the fair of {e}?",
        ),
    },
    "person": {
        "home": _attribute(
            "village",
            "{e} lives in {v}.|The home of {e} is in {v}."
            "|{e} has a house in {v}.|You can meet {e} in {v}.",
            "Where does {e} live?|In which village is the home of {e}?"
            "|In which village does {e} have a house?|Where can you meet {e}?",
        ),
        "trade": _attribute(
            TRADES,
            "{e} is a {v}.|{e} has worked for years as a {v}."
            "|Everyone knows {e} as a good {v}.|{e} learnt the trade of a {v}.",
            "What is the trade of {e}?|What does {e} work as?"
            "|Which trade did {e} learn?|What work does {e} do?",
        ),
        "pet": _attribute(
            PETS,
            "{e} keeps a {v}.|The pet of {e} is a {v}."
            "|A {v} follows {e} everywhere.|{e} feeds a {v} every morning.",
            "Which animal does {e} keep?|What is the pet of {e}?"
            "|Which animal follows {e}?|Which animal does {e} feed?",
        ),
        "food": _attribute(
            FOODS,
            "{e} likes to eat {v}.|The favourite food of {e} is {v}."
            "|{e} cooks {v} for every guest.|Nothing pleases {e} more than {v}.",
            "What does {e} like to eat?|What is the favourite food of {e}?"
            "|What does {e} cook?|Which food does {e} like best?",
        ),
        "friend": _attribute(
            "person",
            "{e} has a friend called {v}.|On Sundays {e} walks with {v}."
            "|{e} writes letters to {v}.|{e} tells every secret to {v}.",
            "Who is the friend of {e}?|With whom does {e} walk?"
            "|To whom does {e} write letters?|Who hears the secrets of {e}?",
        ),
    },
    "ship": {
        "captain": _attribute(
            "person",
            "The ship {e} sails under Captain {v}.|{v} is the captain of the ship {e}."
            "|Captain {v} commands the ship {e}.|The sailors of the ship {e} obey {v}.",
            "Who is the captain of the ship {e}?|Who commands the ship {e}?"
            "|Under which captain does the ship {e} sail?|Whom do the sailors of the ship {e} obey?",
        ),
        "cargo": _attribute(
            GOODS,
            "The ship {e} carries {v}.|The cargo of the ship {e} is {v}."
            "|The ship {e} brings {v} to every port.|The hold of the ship {e} is full of {v}.",
            "What does the ship {e} carry?|What is the cargo of the ship {e}?"
            "|What does the ship {e} bring?|What is in the hold of the ship {e}?",
        ),
        "sails": _attribute(
            COLOURS,
            "The ship {e} has {v} sails.|The sails of the ship {e} are {v}."
            "|You know the ship {e} by its {v} sails.|Above the ship {e} fly {v} sails.",
            "What colour are the sails of the ship {e}?|Which sails does the ship {e} have?"
            "|By which sails do you know the ship {e}?|What colour of sails fly above the ship {e}?",
        ),
    },
}
SUMMARIES = {
    "village": ("{e} is a village on {island} known for its {goods}.", ("island", "goods")),
    "person": ("{e} is a {trade} from {home} who keeps a {pet}.", ("trade", "home", "pet")),
    "ship": ("{e} is a ship with {sails} sails that carries {cargo}.", ("sails", "cargo")),
}


@dataclass(frozen=True)
class Entity:
    """A thing of the world or a stranger, with a value for each attribute of its kind."""

    kind: str
    name: str
    facts: dict[str, str]


def is_reserved(key: str, share: int) -> bool:
    """Whether one in `share` keys, and this one among them, is kept for evaluation."""
    return crc32(key.encode()) % share == 0


def reserved_question(entity: Entity, attribute: str) -> int:
    """The question phrasing never used in training for this fact of the world."""
    return crc32(f"{entity.name}/{attribute}".encode()) % 4


def is_reserved_pair(statement: int, question: int) -> bool:
    """Whether a passage stated one way is asked about another way in evaluation only."""
    return (statement + question) % 4 == 0


def make_world(seed: int) -> list[Entity]:
    """All inhabitants with their facts; the same seed gives the same world."""
    rng = random.Random(seed)
    names = {
        kind: rng.sample([s + e for s in WORLD_STARTS for e in WORLD_ENDS[kind]], count)
        for kind, count in WORLD_COUNTS.items()
    }

    def value(attribute: Attribute, own_name: str) -> str:
        values = names[attribute.values] if isinstance(attribute.values, str) else attribute.values
        return rng.choice([v for v in values if v != own_name])

    return [
        Entity(kind, name, {a: value(spec, name) for a, spec in attributes.items()})
        for kind, attributes in ATTRIBUTES.items()
        for name in names[kind]
    ]


def stranger_name(rng: random.Random, kind: str, reserved: bool) -> str:
    """A name of someone or something outside the world; one in eight is reserved."""
    while True:
        name = rng.choice(STRANGER_STARTS) + rng.choice(STRANGER_ENDS[kind])
        if is_reserved(name, 8) == reserved:
            return name


def make_stranger(rng: random.Random, reserved: bool, kind: str | None = None) -> Entity:
    """An entity seen nowhere else, with fresh names wherever a value is a name."""
    kind = kind or rng.choices(("village", "person", "ship"), (3, 4, 2))[0]
    facts = {
        a: stranger_name(rng, spec.values, reserved) if isinstance(spec.values, str) else rng.choice(spec.values)
        for a, spec in ATTRIBUTES[kind].items()
    }
    return Entity(kind, stranger_name(rng, kind, reserved), facts)
