"""Names of rooms, devices, people and lists, and free text: of our own making."""

from __future__ import annotations

SYLLABLES = "ba be bo bra da del do fa fen ga gri ha hu jo ka ke kor la li lo lu ma mi mo na ne no pa pi po qui ra ri ro sa sha si so ta te ti to tri va ve vi vo wa wi xa ya yo za zi zu".split()


class Namer:
    """Draws names from a vocabulary (LANGUAGE/vocabulary.yaml)."""

    def __init__(self, vocabulary: dict, rng):
        self.v = vocabulary
        self.rng = rng

    def draw(self, kind: str, domains: list[str]) -> str:
        """A name for the list `kind`; `domains` says what {name} stands for."""
        if kind == "name":
            return self.device(self.rng.choice(domains) if domains else "light")
        if kind == "area":
            return self.area()
        table = {"timer_name": "timer_names", "list_name": "lists", "floor": "floors", "zone": "zones", "city": "cities"}
        name = self.rng.choice(self.v[table[kind]])
        if kind == "timer_name" and self.rng.random() < 0.1:
            return self.word()
        return name

    def area(self) -> str:
        """A room; one in twelve is called after a person or has an invented name."""
        roll = self.rng.random()
        if roll < 0.04:
            return f"{self.rng.choice(self.v['people'])}'s {self.rng.choice(['room', 'office', 'bedroom', 'den'])}"
        if roll < 0.08:
            return self.word() + self.rng.choice(["", " room", " suite"])
        if roll < 0.1:
            return f"{self.rng.choice(['bedroom', 'bathroom', 'office', 'room', 'hall'])} {self.rng.randint(1, 9)}"
        return self.rng.choice(self.v["areas"])

    def device(self, domain: str) -> str:
        """A device of a domain, or a person, a list, a place with weather."""
        if domain == "person":
            return self.rng.choice(self.v["people"]) if self.rng.random() < 0.85 else self.word()
        if domain == "todo":
            return self.rng.choice(self.v["lists"]) if self.rng.random() < 0.9 else self.word()
        if domain == "weather":
            return self.rng.choice(self.v["cities"]) if self.rng.random() < 0.9 else self.word()
        domain = {"input_button": "button"}.get(domain, domain)
        noun = self.rng.choice(self.v["nouns"].get(domain, self.v["nouns"]["switch"]))
        roll = self.rng.random()
        if domain in ("vacuum", "lawn_mower") and roll < 0.35:
            return self.rng.choice(self.v["invented"])
        if roll < 0.38:
            return noun
        if roll < 0.62:
            return f"{self.rng.choice(self.v['adjectives'])} {noun}"
        if roll < 0.82:
            return f"{self.area()} {noun}"
        if roll < 0.86:
            return f"{self.area()} {self.rng.choice(self.v['adjectives'])} {noun}"
        if roll < 0.90:
            return f"{self.rng.choice(self.v['possessives'])} {noun}"
        if roll < 0.93:
            return f"{noun} {self.rng.randint(1, 12)}"
        if roll < 0.96:
            return f"{self.word()} {noun}"
        return self.word() if roll < 0.985 else self.rng.choice(self.v["invented"])

    def word(self) -> str:
        """An invented word."""
        return "".join(self.rng.choice(SYLLABLES) for _ in range(self.rng.randint(2, 4)))

    def wild(self, kind: str) -> str:
        """Free text: a shopping item, a message, a song."""
        text = self.rng.choice(self.v[kind])
        roll = self.rng.random()
        if roll < 0.08:
            return self.word()
        if roll < 0.14 and kind != "messages":
            return f"{text} and {self.rng.choice(self.v[kind])}"
        return text
