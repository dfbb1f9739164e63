"""Writes documents: each function makes one kind from the world, chance and a purpose."""

import random
from dataclasses import dataclass

from stories import story
from world import (
    ATTRIBUTES,
    COLOURS,
    FOODS,
    GOODS,
    PETS,
    SUMMARIES,
    TRADES,
    Entity,
    is_reserved,
    is_reserved_pair,
    make_stranger,
    reserved_question,
    stranger_name,
)

WORDS = COLOURS + FOODS + GOODS + PETS + TRADES
LETTERS = "ABCD"
ALIKE = 0.75  # share of training passages whose strangers are of one kind and tell the same things
GREETINGS = (
    ("Who are you?", "I am Wren, a very small language model. I know the villages, people and ships of a made-up world."),
    ("What are you?", "I am Wren, a very small language model. I know the villages, people and ships of a made-up world."),
    ("What is your name?", "My name is Wren."),
    ("Hello", "Hello! Ask me about a village, a person or a ship."),
    ("Hello!", "Hello! Ask me about a village, a person or a ship."),
    ("Hi", "Hello! Ask me about a village, a person or a ship."),
    ("What can you do?", "I can answer questions, write summaries, follow simple instructions and tell stories."),
    ("What do you know?", "I know the villages, people and ships of a made-up world."),
    ("Thank you", "You are welcome!"),
)


@dataclass(frozen=True)
class Item:
    """A prompt and the answer expected of a greedy reader; the answer starts with a space."""

    task: str
    prompt: str
    answer: str

    @property
    def text(self) -> str:
        return self.prompt + self.answer


class Author:
    """Writes documents for training, or, when `reserved`, from what training never sees."""

    def __init__(self, world: list[Entity], seed: int, reserved: bool) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.reserved = reserved
        self.world_values: dict[tuple[str, str], list[str]] = {}
        for entity in world:
            for attribute, value in entity.facts.items():
                self.world_values.setdefault((entity.kind, attribute), []).append(value)

    def _sentence(self, entity: Entity, attribute: str, phrasing: int | None = None) -> tuple[str, int]:
        phrasing = self.rng.randrange(4) if phrasing is None else phrasing
        template = ATTRIBUTES[entity.kind][attribute].statements[phrasing]
        return template.format(e=entity.name, v=entity.facts[attribute]), phrasing

    def _question(self, entity: Entity, attribute: str, phrasing: int) -> str:
        return ATTRIBUTES[entity.kind][attribute].questions[phrasing].format(e=entity.name)

    def _world_fact(self) -> tuple[Entity, str]:
        entity = self.rng.choice(self.world)
        return entity, self.rng.choice(list(entity.facts))

    def _world_question(self, entity: Entity, attribute: str) -> str:
        kept = reserved_question(entity, attribute)
        asked = kept if self.reserved else self.rng.choice([q for q in range(4) if q != kept])
        return self._question(entity, attribute, asked)

    def portrait(self) -> str:
        """A paragraph of facts about an inhabitant, in any phrasing and order."""
        entity = self.rng.choice(self.world)
        chosen = self.rng.sample(list(entity.facts), self.rng.randint(2, len(entity.facts)))
        return " ".join(self._sentence(entity, a)[0] for a in chosen)

    def tell_about(self) -> str:
        """A request to describe an inhabitant, and the description in plain order."""
        entity = self.rng.choice(self.world)
        name = f"the ship {entity.name}" if entity.kind == "ship" else entity.name
        told = " ".join(self._sentence(entity, a, 0)[0] for a in entity.facts)
        return f"Question: Tell me about {name}.\nAnswer: {told}"

    def greeting(self) -> str:
        asked, answer = self.rng.choice(GREETINGS)
        return f"Question: {asked}\nAnswer: {answer}"

    def factoid(self) -> Item:
        """A closed question about the world."""
        entity, attribute = self._world_fact()
        prompt = f"Question: {self._world_question(entity, attribute)}\nAnswer:"
        return Item("factoid", prompt, f" {entity.facts[attribute]}.")

    def _options(self, right: str, candidates: list[str]) -> tuple[str, str]:
        """Four lettered options, the right one among them, and the answer's line."""
        options = self.rng.sample(sorted(set(candidates) - {right}), 3) + [right]
        self.rng.shuffle(options)
        lines = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options))
        return lines, f" {LETTERS[options.index(right)]}. {right}"

    def _candidates(self, kind: str, attribute: str) -> list[str]:
        """Values that strangers of this kind might have."""
        values = ATTRIBUTES[kind][attribute].values
        if isinstance(values, str):
            return [stranger_name(self.rng, values, self.reserved) for _ in range(8)]
        return list(values)

    def multiple_choice(self) -> Item:
        """A closed question about the world with four options."""
        entity, attribute = self._world_fact()
        lines, answer = self._options(entity.facts[attribute], self.world_values[entity.kind, attribute])
        question = self._world_question(entity, attribute)
        return Item("multiple_choice", f"Question: {question}\n{lines}\nAnswer:", answer)

    def letter_drill(self) -> str:
        """Four options and, in another order, the letter of each: what multiple choice rests on."""
        entity, attribute = self._world_fact()
        if self.rng.random() < 0.3:
            options = self.rng.sample(WORDS, 4)
        else:
            options = self.rng.sample(sorted(set(self.world_values[entity.kind, attribute])), 4)
        lines = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options))
        pairs = [f"{option} {letter}" for letter, option in zip(LETTERS, options)]
        self.rng.shuffle(pairs)
        return f"Question: Which letters have the options?\n{lines}\nAnswer: {', '.join(pairs)}."

    def find_option(self) -> Item:
        """Which letter stands before a given word: the last step of multiple choice, alone."""
        entity, attribute = self._world_fact()
        right = entity.facts[attribute]
        lines, answer = self._options(right, self.world_values[entity.kind, attribute])
        return Item("multiple_choice", f"Question: Which option is {right}?\n{lines}\nAnswer:", answer)

    def _passage(self, sizes: tuple[int, ...]) -> tuple[str, list[tuple[Entity, str, int]]]:
        """Sentences about strangers; and what was said of whom in which phrasing.

        In training the strangers are mostly alike in kind and attributes: else the kind of
        value alone would tell the answer, and the model would never learn to look at the name.
        """
        count = self.rng.choice(sizes)
        kind = self.rng.choice(list(ATTRIBUTES)) if not self.reserved and self.rng.random() < ALIKE else None
        strangers = {e.name: e for e in (make_stranger(self.rng, self.reserved, kind) for _ in range(count))}
        shared = self.rng.sample(list(ATTRIBUTES[kind]), self.rng.choice((1, 2, 3))) if kind else []
        told: list[tuple[Entity, str, int]] = []
        sentences: list[str] = []
        for entity in strangers.values():
            chosen = shared or self.rng.sample(list(entity.facts), self.rng.choice((2, 3)))
            for attribute in self.rng.sample(chosen, len(chosen)):
                sentence, phrasing = self._sentence(entity, attribute)
                sentences.append(sentence)
                told.append((entity, attribute, phrasing))
        return " ".join(sentences), told

    def _ask(self, entity: Entity, attribute: str, statement: int) -> str:
        """A question on a passage's statement, in a phrasing that the purpose allows."""
        allowed = [q for q in range(4) if is_reserved_pair(statement, q) == self.reserved]
        return self._question(entity, attribute, self.rng.choice(allowed))

    def in_context(self) -> Item:
        """One question on a passage about two or three strangers (one to three in training)."""
        passage, told = self._passage((2, 3) if self.reserved else (1, 2, 2, 3, 3))
        entity, attribute, statement = self.rng.choice(told)
        prompt = f"Context: {passage}\nQuestion: {self._ask(entity, attribute, statement)}\nAnswer:"
        return Item("in_context", prompt, f" {entity.facts[attribute]}.")

    def spoken_in_context(self) -> str:
        """A passage and its question as one turn of a conversation."""
        passage, told = self._passage((1, 2))
        entity, attribute, statement = self.rng.choice(told)
        asked = self._ask(entity, attribute, statement)
        return f"Question: {passage} {asked}\nAnswer: {entity.facts[attribute]}."

    def quiz(self) -> str:
        """Several questions on one passage: more answers for each token read."""
        passage, told = self._passage((2, 2, 3, 3))
        asked = self.rng.sample(told, min(len(told), self.rng.randint(3, 5)))
        turns = [f"Question: {self._ask(e, a, s)}\nAnswer: {e.facts[a]}." for e, a, s in asked]
        return "\n".join([f"Quiz: {passage}", *turns])

    def choice_in_context(self) -> Item:
        """A multiple-choice question on a passage about strangers."""
        passage, told = self._passage((1, 2))
        entity, attribute, statement = self.rng.choice(told)
        lines, answer = self._options(entity.facts[attribute], self._candidates(entity.kind, attribute))
        question = self._ask(entity, attribute, statement)
        prompt = f"Context: {passage}\nQuestion: {question}\n{lines}\nAnswer:"
        return Item("multiple_choice", prompt, answer)

    def summary(self) -> Item:
        """A passage about one stranger and its one-sentence summary."""
        entity = make_stranger(self.rng, self.reserved)
        template, needed = SUMMARIES[entity.kind]
        other = self.rng.choice([a for a in entity.facts if a not in needed])
        chosen = [*needed, other]
        self.rng.shuffle(chosen)
        passage = " ".join(self._sentence(entity, a)[0] for a in chosen)
        answer = " " + template.format(e=entity.name, **entity.facts)
        if not self.reserved and self.rng.random() < 0.15:
            return Item("summary", f"Question: Summarise this text: {passage}\nAnswer:", answer)
        return Item("summary", f"Text: {passage}\nSummary:", answer)

    def instruction(self) -> Item:
        """A simple instruction on a few words."""
        while True:
            words = self.rng.sample(WORDS, self.rng.randint(2, 4))
            if is_reserved(" ".join(words), 8) == self.reserved:
                break
        asked, answer = self.rng.choice(
            (
                ("Repeat the last word", words[-1]),
                ("Repeat the first word", words[0]),
                ("Write the words in reverse order", " ".join(reversed(words))),
                ("Join with commas", ", ".join(words)),
                ("Join with and", " and ".join(words)),
                ("Count the words", str(len(words))),
                ("Write the last word twice", f"{words[-1]} {words[-1]}"),
            )
        )
        listed = " ".join(words)
        if not self.reserved and self.rng.random() < 0.25:
            return Item("instruction", f"Question: {asked}: {listed}\nAnswer:", f" {answer}")
        return Item("instruction", f"Instruction: {asked}: {listed}\nResponse:", f" {answer}")

    def _some_names(self, count: int) -> list[str]:
        """Different names of strangers."""
        kinds = ("person", "person", "village", "ship")
        return sorted({stranger_name(self.rng, self.rng.choice(kinds), self.reserved) for _ in range(count)})

    def copy_drill(self) -> str:
        """Names to be repeated in their order: teaches to find what came before, and what followed it."""
        names = self._some_names(self.rng.randint(4, 12))
        self.rng.shuffle(names)
        listed = " ".join(names)
        return f"Instruction: Repeat the names: {listed}\nResponse: {listed}"

    def pair_drill(self) -> str:
        """Names with a word each, to be repeated in another order: teaches what belongs to a name."""
        pairs = [f"{name} {self.rng.choice(WORDS)}" for name in self._some_names(self.rng.randint(3, 7))]
        self.rng.shuffle(pairs)
        listed = ", ".join(pairs)
        self.rng.shuffle(pairs)
        return f"Instruction: Repeat the pairs in any order: {listed}\nResponse: {', '.join(pairs)}"

    def tale(self) -> str:
        """A short story, now and then on request."""
        hero, text = story(self.rng)
        if self.rng.random() < 0.3:
            return f"Question: Tell me a story about a {hero}.\nAnswer: {text}"
        return text

    def document(self) -> str:
        """A document of any kind; the shares are chosen so that each task gets its due of tokens."""
        makers = (
            (26, self.portrait),
            (64, self.factoid),
            (3, self.tell_about),
            (0.5, self.greeting),
            (14, self.multiple_choice),
            (8, self.letter_drill),
            (4, self.find_option),
            (3, self.choice_in_context),
            (16, self.in_context),
            (30, self.quiz),
            (3, self.spoken_in_context),
            (11, self.summary),
            (14, self.instruction),
            (5, self.copy_drill),
            (8, self.pair_drill),
            (4, self.tale),
        )
        made = self.rng.choices([m for _, m in makers], [share for share, _ in makers])[0]()
        return made.text if isinstance(made, Item) else made
