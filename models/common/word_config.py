"""The sizes of the sentence encoder that RefCLIP and SimREC share (`word_language`)."""

from dataclasses import dataclass

from groundwork.models.common.checks import require_positive, require_rate


@dataclass(frozen=True, kw_only=True, slots=True)
class WordTextConfig:
    """The sentence encoder of RefCLIP and SimREC: word vectors, GRU, self-attention, pooling.

    word_width: of the word vectors. layers, heads, ffn: of the self-attention.
    train_words: whether the word vectors are trained; as released they stay as read.
    """

    word_width: int = 300
    layers: int = 3
    heads: int = 8
    ffn: int = 2048
    dropout: float = 0.1
    train_words: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "word_width", "layers", "heads", "ffn")
        require_rate("dropout", self.dropout)
