"""Text of our own making, for tests and for a first look without Penn Treebank.

Sentences follow a small grammar whose verb agrees with a subject several words back, so that a
character model has something to learn within a word, and something beyond it. Numbers measured on
this text say nothing about Penn Treebank.
"""

import math
import random

from experiments.ptb.data import Corpus, DataError, corpus_from_texts

_NOUNS = ("bird", "clock", "garden", "judge", "lamp", "maker", "piano", "queen", "river", "wolf")
_ADJECTIVES = ("bright", "early", "grave", "hollow", "quiet", "vexed")
_VERBS = ("call", "find", "keep", "join", "lift", "size")
_PLACES = ("by the sea", "in the park", "on the hill", "under a box")


def generated_text(seed: int, num_lines: int) -> str:
    """`num_lines` lines, two or more, the same for the same seed.

    The first line holds every word once, so that each text has the whole alphabet.
    """
    if num_lines < 2:
        raise DataError(f"num_lines = {num_lines}; expected two lines or more")
    rng = random.Random(seed)
    words = [*_NOUNS, *_ADJECTIVES, *_VERBS, *_PLACES, "s", "the", "and", "."]
    lines = [" ".join(words)]
    lines += [_sentence(rng) for _ in range(num_lines - 1)]
    return "\n".join(lines) + "\n"


def generated_corpus(seed: int, num_lines: int, *, keep_line_spaces: bool = False) -> Corpus:
    """A Corpus with `num_lines` lines of training text, a tenth of it (or 2) per other split."""
    few = max(num_lines // 10, 2)
    return corpus_from_texts(
        train=generated_text(3 * seed, num_lines),
        valid=generated_text(3 * seed + 1, few),
        test=generated_text(3 * seed + 2, few),
        keep_line_spaces=keep_line_spaces,
    )


def bits_per_character() -> float:
    """The entropy of a character given all before, in bits: no model does better on long texts.

    A sentence is a number of independent choices, all of which can be read from it: the number of
    the subject, an adjective, two nouns, a verb, a place or none, and the second half or none.
    """

    def mean_length(words: tuple[str, ...]) -> float:
        return sum(map(len, words)) / len(words)

    noun, verb, again = mean_length(_NOUNS), mean_length(_VERBS), 0.2
    place = 0.5 * (1 + mean_length(_PLACES))
    # Of the two s, of the noun and of the verb, a sentence has one; a second verb has one half.
    spaces_and_ends = len("the    the  .\n")
    characters = spaces_and_ends + mean_length(_ADJECTIVES) + 2 * noun + verb + 1 + place
    characters += again * (len("and  again ") + verb + 0.5)
    choices = [len(_ADJECTIVES), len(_NOUNS), len(_NOUNS), len(_VERBS)]
    bits = 1 + sum(map(math.log2, choices)) + 1 + 0.5 * math.log2(len(_PLACES))
    bits -= again * math.log2(again) + (1 - again) * math.log2(1 - again)
    return bits / characters


def _sentence(rng: random.Random) -> str:
    plural = rng.random() < 0.5
    subject = f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}{'s' if plural else ''}"
    place = f" {rng.choice(_PLACES)}" if rng.random() < 0.5 else ""
    verb = rng.choice(_VERBS) + ("" if plural else "s")
    end = f"and {verb} again ." if rng.random() < 0.2 else "."
    return f"the {subject}{place} {verb} the {rng.choice(_NOUNS)} {end}"
