"""Small corpora of our own making to score: a prediction and its references each, plain and awkward."""

from __future__ import annotations

import random

Corpus = list[tuple[str, list[str]]]

PUBS: Corpus = [
    ("The Copper Kettle is a family-friendly pub near the river.",
     ["The Copper Kettle is a pub by the river that welcomes families.",
      "Near the river there is a family-friendly pub called The Copper Kettle."]),
    ("Bruno's serves Italian food for £20-25.",
     ["Bruno's is an Italian restaurant, where a meal costs £20-25.", "For £20-25 you get Italian food at Bruno's.",
      "Bruno's serves Italian food; the price is £20-25."]),
    ("It isn't cheap, but it's rated 5 out of 5!", ["Rated 5 out of 5, it isn't cheap.", "It's not cheap. It's 5/5."]),
    ("Café Verde doesn't serve breakfast.",
     ["There is no breakfast at Café Verde.", "Café Verde serves no breakfast."]),
    ("pub pub pub pub pub pub", ["The pub is near the other pub.", "A pub."]),
    ("Yes", ["Yes", "Yes, it is."]),
    ("", ["A coffee shop in the city centre.", "In the city centre there is a coffee shop."]),
    ('"The Green Door" (a high-priced bar) opened in 1998; it closed at 10:30.',
     ['The bar "The Green Door" is high-priced. It opened in 1998 and closed at 10:30.',
      "A high-priced bar, The Green Door, opened in 1998 - it closed at 10:30."]),
    ("Prices start at $3.50 & end at 1,250.75 – or so they say...",
     ["Prices start at $3.50 and end at 1,250.75, or so they say.", "From $3.50 to 1,250.75 -- so they say..."]),
    ("the Children 's menu is n't long .", ["The children 's menu is short .", "They do n't have much for children ."]),
    ("Loch Fyne, Loch Fyne, Loch Fyne: the same again and again and again.",
     ["Loch Fyne, the same again and again.", "Again Loch Fyne: the same."]),
    ("The owners' dog can't bark and cannot bite?!", ["The dog of the owners can't bark or bite.", "It cannot bite!"]),
    ("A very long sentence about one restaurant which is near a river, near a park, near a school, near a church, near "
     "a shop, near a bridge, near a wall, near a tower, near a mill and near another restaurant of the same name.",
     ["The restaurant is near everything.",
 
          "A long sentence about a restaurant near a river, a park, a school, "
          "a church, a shop, a bridge, a wall, a tower."]),
    ("restaurant the river the by near is",
     ["The restaurant is near by the river", "is the restaurant near the river"]),
    ("RATED 3.5/5 AND/OR 70% BY CUSTOMERS", ["Rated 3.5/5 and/or 70% by customers", "Customers rate it 70%"]),
]  # fmt: skip

AWKWARD: Corpus = [  # what the Python port leaves to Stanford's tokenizer: addresses, abbreviations, acronyms
    ("Mr. Smith of St. Ives is from the U.S. and came on Jan. 5.",
     ["Mr. Smith came from the U.S. in Jan. to St. Ives."]),
    ("Open from 9 a.m. to 5 p.m., see www.example.org or call 0800 123 4567 :)",
     ["It is open 9 a.m. to 5 p.m. (www.example.org).", "Call 0800 123 4567!"]),
    ("R&D costs 4 1/2 million; naïve e-mail: a.b@example.com",
     ["The R&D budget is 4 1/2 million.", "E-mail a.b@example.com"]),
    ("東京 is the capital of Japan → 13 million live there.",
     ["Tokyo (東京) is Japan's capital; 13 million live there."]),
    ("O'Neill's o'clock 'til the '90s, etc., etc.", ["O'Neill's clock from the '90s, etc."]),
]  # fmt: skip

FACTS: Corpus = [
    ("alan bean was born in wheeler , texas .",
     ["alan bean was born in wheeler , texas .", "the birthplace of alan bean is wheeler , texas ."]),
    ("the 14th new jersey volunteer infantry monument is in the district of monmouth",
     ["monmouth is the district of the 14th new jersey volunteer infantry monument .", ""]),
    ("it ' s 3 . 5 km long .", ["it is 3 . 5 km long .", "the length is 3 . 5 km ."]),
    ("", ["something was expected .", "a text was expected ."]),
    ("aarhus airport",
     ["aarhus airport serves the city of aarhus , denmark .", "aarhus is served by aarhus airport ."]),
    ("b c d e a f g h", ["a b c d e f g h", "h g f e d c b a"]),
    ("the city of leipzig , the city of leipzig , the city of leipzig", ["the city of leipzig", "leipzig is a city ."]),
    ("is leipzig where ( in saxony ) the fair takes place ?", ["where in saxony does the fair take place ?", ""]),
    ("café « verde » – 100 % naïve", ["the café « verde » is 100 % naïve .", "café verde"]),
    ("she said \" no \" and left ; he didn ' t .",
     ["\" no \" , she said , and left .", "he didn ' t leave , she did ."]),
]  # fmt: skip

PLAIN_FACTS: Corpus = [  # as people write, one sentence each, so that sentence splitting has nothing to decide
    ("Alan Bean (born in Wheeler, Texas) wasn't the first man on the Moon.",
     ["Alan Bean was born in Wheeler, Texas; he wasn't first on the Moon.",
      "Born in Wheeler, Alan Bean flew to the Moon."]),
    ('The "Acharya Institute" costs $1,000-2,000 & has 700 staff!',
     ['The Acharya Institute\'s 700 staff cost $1,000-2,000.', "It has 700 staff"]),
    ("The runway's length is 2,776.0 metres", ["The length of the runway is 2776.0 m.", "2,776 metres is its length."]),
    ("I cannot tell you what they're gonna do: who'll win?", ["I can't tell you who'll win.", "Who's gonna win?"]),
]  # fmt: skip


def templates(count: int, seed: int) -> Corpus:
    """Sentences from a few patterns, one to four references each, the prediction sometimes cut, doubled or shuffled."""
    draw = random.Random(seed)
    names = ["The Mill", "Café Sol", "Ben's", "Blue Fox", "Loch Bay", "Zum Stern"]
    foods = ["Italian", "French", "fast", "Japanese", "English"]
    places = ["in the city centre", "by the river", "near the old bridge", "near Café Sol"]
    prices = ["cheap", "£20-25", "more than £30", "high-priced"]
    patterns = [
        "{n} is a {p} place with {f} food {w}.",
        "{n} serves {f} food {w}, and it's {p}.",
        "{w} you'll find {n}: {f} food, {p}!",
        "For {f} food ({p}) go to {n} {w}.",
    ]
    corpus: Corpus = []
    for _ in range(count):
        slots = {"n": draw.choice(names), "f": draw.choice(foods), "w": draw.choice(places), "p": draw.choice(prices)}
        references = [pattern.format(**slots) for pattern in draw.sample(patterns, draw.randint(1, 4))]
        words = draw.choice(patterns).format(**slots).split(" ")
        change = draw.random()
        if change < 0.2:
            words = words[: draw.randint(1, len(words))]
        elif change < 0.3:
            words += words[-3:]
        elif change < 0.4:
            draw.shuffle(words)
        corpus.append((" ".join(words), references))
    return corpus


E2E: dict[str, Corpus] = {
    "pubs": PUBS,
    "pubs and awkward": PUBS + AWKWARD,
    "templates": templates(80, seed=1),
    "two": PUBS[:2],
}


def _filled(corpus: Corpus) -> Corpus:
    """References of equal number, filled up with the first, as the LoRA chain does."""
    most = max(len(references) for _, references in corpus)
    return [(text, references + references[:1] * (most - len(references))) for text, references in corpus]


WEBNLG: dict[str, Corpus] = {
    "facts": FACTS,
    "plain facts": PLAIN_FACTS,
    "facts, one reference": [(text, references[:1]) for text, references in FACTS],
    "templates": _filled(templates(60, seed=2)),
    "unmatched": [("nothing in common here", ["quite another text", "something else"])],
}
