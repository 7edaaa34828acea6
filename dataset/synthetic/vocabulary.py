"""Words of the embedded data set: attributes, positions, relations, synonyms, and the tokeniser's
vocabulary.
"""

import string

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (240, 215, 40),
    "purple": (150, 50, 190),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
TEXTURES = ("plain", "striped", "dotted")
SIZES = ("small", "large")
POSITIONS = ("left", "right", "top", "bottom")
RELATIONS = ("left of", "right of", "above", "below")

# word -> (seen synonym, held-out synonym)
SYNONYMS = {
    "red": ("crimson", "scarlet"),
    "green": ("emerald", "jade"),
    "blue": ("azure", "cobalt"),
    "yellow": ("golden", "lemon"),
    "purple": ("violet", "mauve"),
    "white": ("ivory", "pale"),
    "circle": ("disc", "ball"),
    "square": ("box", "block"),
    "triangle": ("wedge", "pyramid"),
    "star": ("spark", "pentagram"),
    "cross": ("plus", "crucifix"),
    "ring": ("hoop", "loop"),
    "plain": ("solid", "uniform"),
    "striped": ("banded", "lined"),
    "dotted": ("spotted", "speckled"),
    "small": ("tiny", "little"),
    "large": ("big", "huge"),
    "above": ("over", "atop"),
    "below": ("under", "beneath"),
}
FUNCTION_WORDS = (
    *("a", "an", "the", "every", "and", "of", "on", "in", "at", "to", "there", "is"),
    *("side", "picture", "leftmost", "rightmost", "topmost", "lowest"),
)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def words() -> list[str]:
    """Every word that occurs in any text, in a fixed order."""
    base = (*COLOURS, *SHAPES, *TEXTURES, *SIZES, *POSITIONS, "above", "below")
    synonyms = [word for pair in SYNONYMS.values() for word in pair]
    return list(dict.fromkeys((*FUNCTION_WORDS, *base, *synonyms)))


def wordpiece_vocabulary() -> list[str]:
    """Tokens of `vocab.txt`: special tokens first (`[PAD]` is 0), then words, then the letters that
    spell any other word."""
    characters = string.ascii_lowercase + string.digits
    pieces = [*characters, *(f"##{c}" for c in characters)]
    return list(dict.fromkeys((*SPECIAL_TOKENS, *words(), *pieces)))


def synonym_table() -> dict[str, dict[str, list[str]]]:
    """`{word: {"seen": [...], "heldout": [...]}}`, the content of `synonyms.json`."""
    return {w: {"seen": [seen], "heldout": [held]} for w, (seen, held) in SYNONYMS.items()}
