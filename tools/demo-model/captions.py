"""Captions: what a drawing may be called, as templates, plurals, colours and counts."""
TEMPLATES = [  # weight, template
    (30, "This is a photo of {}."), (18, "{}"), (6, "a photo of {}"), (6, "a drawing of {}"), (5, "a picture of {}"), (4, "clip art of {}"),
    (4, "an icon of {}"), (4, "a cartoon of {}"), (3, "This is a drawing of {}."), (3, "This is a picture of {}."), (3, "an image of {}"),
    (2, "a sketch of {}"), (2, "an illustration of {}"), (2, "a painting of {}"), (2, "a photo of the {}", ), (2, "there is {} in this picture"),
    (2, "a close-up of {}"), (2, "this is {}"),
]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray"]
COUNTS = {2: ["two", "2", "a pair of"], 3: ["three", "3"]}
NO_PLURAL = {"music", "money", "glasses", "trousers", "scissors", "scales", "billiards", "golf", "tennis", "rain", "fire", "fireworks", "rice", "bread",
             "french fries", "spaghetti", "popcorn", "sushi", "soup", "salad", "meat", "milk", "tea", "coffee", "juice", "food", "clothing", "furniture",
             "electronics", "nature", "grapes", "socks", "headphones", "pancakes", "peas", "grass", "corn", "garlic", "honey", "soap", "lightning",
             "earth", "santa claus", "statue of liberty", "stationery", "chocolate", "candy", "cheese", "american football", "radioactive", "pliers",
             "bowling", "wine", "beer", "statue", "bow and arrow", "sheep", "deer", "fish", "goldfish", "shrimp", "baseball", "basketball", "volleyball"}
NO_ARTICLE = NO_PLURAL - {"sheep", "deer", "fish", "goldfish", "shrimp", "billiards", "statue of liberty", "baseball", "basketball", "volleyball", "statue",
                          "american football", "bow and arrow"}


def article(words):
    return ("an " if words[0] in "aeiou" and not words.startswith(("uni", "eu", "one")) else "a ") + words


def plural(word):
    if word in NO_PLURAL or word.endswith("s") and not word.endswith(("ss", "us")):
        return word
    irregular = {"man": "men", "woman": "women", "child": "children", "mouse": "mice", "person": "people", "foot": "feet", "tooth": "teeth",
                 "leaf": "leaves", "wolf": "wolves", "knife": "knives", "goose": "geese", "scarf": "scarves", "policeman": "policemen", "bookshelf": "bookshelves",
                 "police officer": "police officers", "fireman": "firemen", "computer mouse": "computer mice", "snowman": "snowmen", "ox": "oxen"}
    if word in irregular:
        return irregular[word]
    if word.endswith(("s", "sh", "ch", "x", "z")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def fill(rng, words, plain=None):
    """`words` in a random template; `plain`: already has its article."""
    template = rng.choices(TEMPLATES, [t[0] for t in TEMPLATES])[0][1]
    if "the {}" in template and words.split()[0] in ("a", "an", "the", "two", "three", "2", "3", "one"):
        template = "a photo of {}"
    return template.format(words)


def name(rng, word):
    """A word as people type it as a label: bare, with an article, or in the plural."""
    r = rng.random()
    if word in NO_ARTICLE:
        return word
    if r < 0.42:
        return word
    if r < 0.84:
        return article(word)
    if r < 0.92:
        return "the " + word
    return plural(word)
