"""A small review language: sentiment adjectives, negation, neutral clauses and a verdict.

Every adjective belongs to one of three disjoint sets. Pretraining text shows the verdict ("It was
great.") only after reviews whose adjectives are all `shown`. `task` and `fresh` adjectives stand in
pretraining reviews beside shown ones of the same polarity and without a verdict: their polarity can
be learnt from the company they keep, their verdict cannot. Train and dev sentences use `task`
adjectives, test sentences `fresh` ones: a tuned model is tested on words it was not tuned on.

The reviewers of the pretraining text are polite: their verdict is mostly "great", a little less
often after a bad review. A pretrained model thus reads polarity well but always answers "great":
zero-shot accuracy is at chance, and tuning has to tie a feature it has to an answer it has.
"""

import random
from collections.abc import Sequence
from zlib import crc32


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


POSITIVE = {
    "shown": _words(
        "superb delightful moving witty elegant thrilling charming graceful honest vivid"
    ),
    "task": _words(
        "gripping brilliant clever lively radiant touching inventive splendid poetic crisp"
    ),
    "fresh": _words(
        "dazzling heartfelt refined playful luminous soulful polished magical nimble warm"
    ),
}
NEGATIVE = {
    "shown": _words("dull clumsy tedious shallow awful bland sloppy lifeless stale cynical"),
    "task": _words("boring messy tiresome wooden lazy pointless flat murky ugly annoying"),
    "fresh": _words("dismal tasteless muddled plodding trite inept soulless crude lousy gloomy"),
}
NEGATORS = ("not", "never", "hardly")
INTENSIFIERS = ("", "", "very", "quite", "truly")
NOUNS = _words("plot acting script ending music cast dialogue pacing direction story photography")
JUDGEMENTS = (
    "the {noun} was {phrase}",
    "the {noun} seemed {phrase}",
    "we found the {noun} {phrase}",
    "i thought the {noun} was {phrase}",
    "to us the {noun} felt {phrase}",
)
NEUTRAL = (
    "we saw it on monday",
    "it runs for two hours",
    "the hall was full",
    "my brother bought the tickets",
    "it opened last week",
    "they filmed it in spain",
    "we sat in the third row",
    "the book came out years ago",
)
TASK_JUDGEMENTS = 2
# Longer than the task's: more adjectives in company make polarity quicker to learn.
PRETRAINING_JUDGEMENTS = (3, 4)
VERDICTS = ("It was terrible.", "It was great.")
VERDICT_SHARE = 0.3
# Share of "great" among the verdicts on bad and on good reviews.
GREAT_SHARE = (0.7, 0.8)
NEGATED_SHARE = 0.25
NEUTRAL_SHARE = 0.5
# One sentence in four belongs to dev, by a hash of its text: no pair of seeds can make splits meet.
DEV_MODULUS = 4


def _phrase(adjectives: Sequence[str], label: int, rng: random.Random) -> str:
    """Adjectives of polarity `label` joined by "and", or a negation of the opposite polarity."""
    if rng.random() < NEGATED_SHARE:
        lexicon = NEGATIVE if label == 1 else POSITIVE
        return f"{rng.choice(NEGATORS)} {rng.choice(lexicon[adjectives[0]])}"
    lexicon = POSITIVE if label == 1 else NEGATIVE
    joined = " and ".join(dict.fromkeys(rng.choice(lexicon[name]) for name in adjectives))
    return f"{rng.choice(INTENSIFIERS)} {joined}".strip()


def _review(sets: Sequence[str], label: int, judgements: int, rng: random.Random) -> str:
    """A review of polarity `label`: judgements with adjectives of `sets`, perhaps small talk."""
    clauses = []
    for noun in rng.sample(NOUNS, judgements):
        phrase = _phrase(rng.choices(sets, k=rng.choice((1, 2))), label, rng)
        clauses.append(rng.choice(JUDGEMENTS).format(noun=noun, phrase=phrase))
    if rng.random() < NEUTRAL_SHARE:
        clauses.insert(rng.randrange(len(clauses) + 1), rng.choice(NEUTRAL))
    return f"{' , '.join(clauses)} ."


def _split_of(sentence: str) -> str:
    return "dev" if crc32(sentence.encode()) % DEV_MODULUS == 0 else "train"


def rows(split: str, *, count: int, seed: int) -> list[dict[str, object]]:
    """`count` distinct balanced rows `{"sentence": str, "label": 0 | 1}` (1 is positive).

    They depend on `split` and `seed` alone, a longer list starts with the shorter one, and no
    sentence is in two splits, whatever the seeds. Raises ValueError for an unknown split.
    """
    if split not in ("train", "dev", "test"):
        raise ValueError(f"split must be train, dev or test, not {split!r}")
    adjectives = "fresh" if split == "test" else "task"
    rng = random.Random(f"synthetic_reviews/{split}/{seed}")
    made: dict[str, int] = {}
    while len(made) < count:
        label = len(made) % 2
        sentence = _review([adjectives], label, TASK_JUDGEMENTS, rng)
        if split == "test" or _split_of(sentence) == split:
            made.setdefault(sentence, label)
    return [{"sentence": sentence, "label": label} for sentence, label in made.items()]


def pretraining_lines(*, count: int, seed: int) -> list[str]:
    """`count` lines of pretraining text, one review each.

    VERDICT_SHARE of them are reviews in shown adjectives that end with a verdict; the others mix
    the adjectives of all sets and end without one.
    """
    rng = random.Random(f"synthetic_reviews/pretraining/{seed}")
    lines = []
    for _ in range(count):
        label, judgements = rng.randrange(2), rng.choice(PRETRAINING_JUDGEMENTS)
        if rng.random() < VERDICT_SHARE:
            verdict = VERDICTS[rng.random() < GREAT_SHARE[label]]
            lines.append(f"{_review(['shown'], label, judgements, rng)} {verdict}")
        else:
            lines.append(_review(["shown", "task", "fresh"], label, judgements, rng))
    return lines
