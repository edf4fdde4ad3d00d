"""Sentences with slots, drawn at random from hassil's sentence templates.

Two sources: the templates of Home Assistant (PyPI: home-assistant-intents, CC BY 4.0) and the
paraphrases in LANGUAGE/phrases.yaml. A sample is a list of (text, slot) chunks: what stands
between slots has the slot None.
"""

from __future__ import annotations

import dataclasses
import pathlib
import random

import yaml
from hassil.expression import Alternative, ListReference, Permutation, RuleReference, TextChunk
from hassil.parse_expression import parse_sentence
from home_assistant_intents import get_intents

import names
import numerals

HERE = pathlib.Path(__file__).parent

# Words that say a domain, when the template's own slots do (`slots: {domain: light}`).
DOMAIN_WORDS = {
    "light": {"light", "lights", "lighting", "lamp", "lamps"},
    "fan": {"fan", "fans"},
    "switch": {"switch", "switches"},
    "lock": {"lock", "locks", "door", "doors", "window", "windows", "gate", "gates", "shutter", "shutters"},
    "person": {"anyone", "anybody", "someone", "somebody", "everyone", "everybody", "who", "people", "persons"},
}
SHARE_OF_OURS = 0.5  # of all sampled sentences, those from phrases.yaml
SHARE_OF_LONE_NAMES = 0.1  # how many of the templates that are nothing but a name are kept


@dataclasses.dataclass
class Block:
    """Templates with the same slots and the same kind of devices."""

    sentences: list
    domains: list[str]
    slots: dict[str, str]
    source: str


class Sampler:
    """Draws (intent, chunks) from all templates of a language."""

    def __init__(self, language: str, rng: random.Random):
        self.rng = rng
        grammar = get_intents(language)
        ours = yaml.safe_load((HERE / language / "phrases.yaml").read_text())
        self.vocabulary = yaml.safe_load((HERE / language / "vocabulary.yaml").read_text())
        self.namer = names.Namer(self.vocabulary, rng)
        self.lists = grammar["lists"]
        rules = grammar["expansion_rules"] | ours["rules"]
        self.rules = {name: parse_sentence(text).expression for name, text in rules.items()}
        self.blocks: dict[str, dict[str, list[Block]]] = {}
        for intent, data in grammar["intents"].items():
            self._add(intent, "theirs", data["data"])
        for intent, data in ours["intents"].items():
            self._add(intent, "ours", data)
        self.intents = sorted(self.blocks)
        # Intents with more templates say more kinds of things; the root keeps the others in sight.
        self.weights = [self._size(intent) ** 0.5 for intent in self.intents]

    def _add(self, intent, source, data):
        for block in data:
            context = (block.get("requires_context") or {}).get("domain") or block.get("domains") or []
            context = [context] if isinstance(context, str) else context
            parsed = [parse_sentence(text).expression for text in block["sentences"]]
            made = Block(parsed, context, block.get("slots") or {}, source)
            self.blocks.setdefault(intent, {}).setdefault(source, []).append(made)

    def _size(self, intent):
        return sum(len(b.sentences) for blocks in self.blocks[intent].values() for b in blocks)

    def sample(self, source: str | None = None):
        """One (intent, chunks, source)."""
        while True:
            intent = self.rng.choices(self.intents, self.weights)[0]
            wanted = source or ("ours" if self.rng.random() < SHARE_OF_OURS else "theirs")
            blocks = self.blocks[intent].get(wanted)
            if not blocks:
                continue
            # Half of the draws by block, half by template: both long and short blocks get seen.
            weights = None if self.rng.random() < 0.5 else [len(b.sentences) for b in blocks]
            block = self.rng.choices(blocks, weights)[0]
            chunks = self.walk(self.rng.choice(block.sentences), block)
            if self._is_lone_name(chunks) and self.rng.random() > SHARE_OF_LONE_NAMES:
                continue
            return intent, mark_domain(chunks, block.slots.get("domain")), wanted

    @staticmethod
    def _is_lone_name(chunks):
        return all(slot == "name" or text.strip() in ("", "the", "my", "our") for text, slot in chunks)

    def walk(self, node, block):
        """[(text, slot)] for a random path through a template's expression."""
        if isinstance(node, TextChunk):
            return [(node.original_text, None)]
        if isinstance(node, RuleReference):
            return self.walk(self.rules[node.rule_name], block)
        if isinstance(node, ListReference):
            return [(self.value(node, block), node.slot_name)]
        if isinstance(node, Alternative):
            return self.walk(self.rng.choice(node.items), block)
        items = list(node.items)
        if isinstance(node, Permutation):
            self.rng.shuffle(items)
            found = []
            for item in items:
                found += self.walk(item, block) + [(" ", None)]
            return found
        return [chunk for item in items for chunk in self.walk(item, block)]

    def value(self, node, block):
        """What stands in the sentence for a list."""
        name = node.list_name
        ours = self.vocabulary["values"]
        if name in ours:
            return self.rng.choice(ours[name])
        if name == "color" and self.rng.random() < 0.7:
            return self.rng.choice(ours["colors"])
        if name in ("name", "timer_name", "list_name", "area", "floor", "zone", "city"):
            return self.namer.draw(name, block.domains)
        wild = {
            "message": "messages", "search_query": "queries", "timer_command": "commands",
            "shopping_list_item": "items", "todo_list_item": "items",
        }  # fmt: skip
        if name in wild:
            return self.namer.wild(wild[name])
        listed = self.lists[name]
        if "range" in listed:
            return numerals.draw(listed["range"], self.rng)
        value = self.rng.choice(listed["values"])
        text = value if isinstance(value, str) else value["in"]
        return "".join(part for part, _ in self.walk(parse_sentence(text).expression, block)).strip()


class Foreign:
    """Draws sentences that ask for nothing a home does: LANGUAGE/foreign.yaml."""

    def __init__(self, language: str, rng: random.Random):
        content = yaml.safe_load((HERE / language / "foreign.yaml").read_text())
        self.templates = [parse_sentence(text).expression for text in content["sentences"]]
        self.lists, self.rng = content["lists"], rng

    def sample(self) -> str:
        """One sentence."""
        return " ".join(self.walk(self.rng.choice(self.templates)).split())

    def walk(self, node) -> str:
        """The text of a random path through an expression."""
        if isinstance(node, TextChunk):
            return node.original_text
        if isinstance(node, ListReference):
            return str(self.rng.choice(self.lists[node.list_name]))
        if isinstance(node, Alternative):
            return self.walk(self.rng.choice(node.items))
        return "".join(self.walk(item) for item in node.items)


def mark_domain(chunks, domain):
    """Splits the words that say the domain out of the text between slots."""
    words = DOMAIN_WORDS.get(domain)
    if not words or any(slot in ("domain", "device_class") for _, slot in chunks):
        return chunks
    found = []
    for text, slot in chunks:
        if slot is not None:
            found.append((text, slot))
            continue
        for i, part in enumerate(text.split(" ")):
            found.append((" " if i else "", None))
            found.append((part, "domain" if part.lower() in words else None))
    return found
