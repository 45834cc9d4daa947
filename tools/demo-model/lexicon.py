"""The concepts the demo model is taught, and how titles, keywords and emoji names are read as concepts."""
import re
from pathlib import Path

GROUP_WORDS = {  # groups are labels too ("an animal"); these words name them
    "animal": ["animals"], "mammal": [], "bird": ["birds"], "reptile": [], "fish": ["fishes"], "sea animal": [],
    "insect": ["insects"], "food": [], "fruit": ["fruits"], "vegetable": ["vegetables"], "drink": ["beverage"],
    "plant": ["plants"], "vehicle": ["vehicles"], "building": ["buildings"], "furniture": [],
    "household object": [], "electronics": [], "tool": ["tools"], "weapon": ["weapons"], "stationery": [],
    "clothing": ["clothes"], "musical instrument": ["musical instruments"], "sport": ["sports"], "toy": ["toys"],
    "body part": [], "nature": [], "sign": ["road sign"],
}
# Neither positive nor negative for each other: what one artist calls this another calls that.
CONFUSABLE = [
    "cat tiger lion leopard", "dog wolf fox", "cow bull", "sheep goat", "mouse,rat,hamster,squirrel", "duck swan chicken dove bird",
    "beetle ladybug ant fly", "rose tulip daisy sunflower flower bouquet", "tree,pine tree,christmas tree,palm tree",
    "car,taxi,police car", "truck,bus,ambulance,fire engine", "ship,boat,sailboat", "computer,laptop,monitor,keyboard,television",
    "cup,coffee,tea,glass,juice", "bowl soup pot", "house building castle church tower barn city", "lock key", "bicycle motorcycle",
    "book,newspaper,clipboard,letter,scroll", "pen,pencil,crayon,paintbrush", "man,woman,person,baby,child,runner,dancer,king,queen",
    "smiley,person,man,woman,child", "ball,soccer ball,basketball,volleyball,baseball", "earth planet moon", "cloud rain lightning",
    "sword dagger knife", "cross,church,coffin", "clock watch", "box gift", "chair sofa", "orange,lemon,peach,apple,melon,plum",
    "donut,cookie,cake,muffin,pie", "wine,cocktail,glass,bottle,beer", "violin guitar", "hat,cowboy,crown", "ring,gem,necklace",
    "camera,video camera", "phone,calculator", "whale dolphin shark fish", "star,medal", "sun star", "flag,sign", "leaf,plant,seedling,clover",
    "fire,candle", "balloon,hot air balloon", "magnifying glass,telescope", "trophy,medal,cup", "skeleton,ghost", "island,palm tree",
    "horse donkey zebra", "octopus jellyfish", "lamp,light bulb", "wrench,screwdriver,pliers,hammer,gear", "arrow,sign", "money,credit card",
    "boot shoe", "shirt dress coat", "mountain volcano", "wheel,gear", "target,dice", "cd,record", "bomb,rocket", "grapes,wine", "bee fly",
    "stop sign,no entry,sign", "water drop,rain,wave", "plate,fork,knife,spoon", "santa claus,man", "witch,woman", "police officer,man",
    "fireman,man", "soldier,man", "cowboy,man", "angel,woman", "pirate,man", "swimmer,person", "astronaut,person", "clown,smiley",
    "pumpkin,smiley", "moon,smiley", "sun,smiley", "earth,map", "hamburger,sandwich", "bread,sandwich,pizza,cake", "meat,chicken leg,hot dog",
    "gun,cannon", "speech bubble,smiley", "snowflake,star", "robot,alien", "monkey,gorilla", "eagle,bird,owl,parrot,crow,seagull",
    "bear,panda,koala,teddy bear", "crab,lobster,shrimp,scorpion", "snake,lizard,crocodile,dragon,dinosaur", "turtle,frog",
]


class Lexicon:
    def __init__(self, path=Path(__file__).with_name("concepts.txt")):
        self.groups, self.words, self.terms, self.strict = {}, {}, {}, set()
        section = []
        for line in path.read_text().splitlines():
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("["):
                section = [g.strip() for g in line[1:-1].split(",")]
                continue
            head, _, rest = line.partition(":")
            words = [w.strip() for w in [head] + rest.split(",") if w.strip()]
            name = words[0].lstrip("!")
            self.groups[name] = [g for g in section if g != name]
            self.words[name] = []
            for w in words:
                if w.startswith("!"):
                    w = w[1:]
                    self.strict.add(w)
                self.words[name].append(w)
                self.terms[w] = name
        for g, words in GROUP_WORDS.items():
            if g not in self.groups:
                self.groups[g] = ["animal"] if g in ("mammal", "bird", "reptile", "fish", "sea animal", "insect") else \
                                 ["food"] if g in ("fruit", "vegetable") else []
                self.words[g] = [g] + words
                for w in self.words[g]:
                    self.terms.setdefault(w, g)
        self.names = sorted(self.groups)
        self.index = {n: i for i, n in enumerate(self.names)}
        self.is_group = {n: n in GROUP_WORDS or n in ("flower", "person") for n in self.names}
        longest = sorted(self.terms, key=len, reverse=True)
        self.pattern = re.compile(r"\b(" + "|".join(map(re.escape, longest)) + r")(s|es)?\b")
        self.confusable = set()
        for line in CONFUSABLE:
            members = [m.strip() for m in (line.split(",") if "," in line else line.split())]
            self.confusable |= {(a, b) for a in members for b in members if a != b}

    @staticmethod
    def clean(text):
        text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower().replace("'", "")
        text = re.sub(r"[^a-zà-ÿ-]+", " ", text)
        return re.sub(r"\s+", " ", re.sub(r"(^|\s)-+|-+(\s|$)", " ", text)).strip()

    def find(self, text, title=True):
        """Concepts named in `text`, as {concept: the word used}."""
        found = {}
        text = self.clean(text)
        for candidate in {text, text.replace("-", " ")}:
            for m in self.pattern.finditer(candidate):
                word = m.group(1)
                if word in self.strict and not (title and (candidate == m.group(0) or (candidate.endswith(" " + m.group(0)) and len(candidate) < 30))):
                    continue
                found.setdefault(self.terms[word], word)
        return found

    def closure(self, names):
        """With the groups each concept belongs to."""
        out, todo = set(), list(names)
        while todo:
            n = todo.pop()
            if n not in out and n in self.groups:
                out.add(n)
                todo += self.groups[n]
        return out
