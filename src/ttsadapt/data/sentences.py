"""Sentences of our own: a small grammar over word lists that together hold every English phone in many contexts."""

import random
from collections.abc import Callable, Sequence

from ttsadapt.errors import ConfigError

Say = Callable[[random.Random], str]


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_WHO = _words(
    "the baker, my sister, our teacher, the young nurse, the old sailor, a tall farmer, her cousin, the judge, his uncle, "
    "the shy boy, a tired driver, their neighbor, the vet, my brother, the choir, a clever thief, the jolly cook, the twins, "
    "George, Joyce, Ruth, Theo, Charlotte, Hugh, Zoe, Vivian, Paul, Yusuf, an usher, the chief, your father, the girls"
)
_CARRY = _words("carried, dropped, found, hid, lost, wrapped, bought, sold, chose, borrowed, packed, pulled out, gave away, kept")
_OBJECT = _words(
    "the blue jug, a heavy chair, seven old books, the brass key, a cheap watch, the thick rope, a silver spoon, the torn map, "
    "a leather purse, the wool scarf, a paper crown, the green vase, two white feathers, the oily cloth, a box of matches, "
    "the toy train, a pair of gloves, the broken zipper, a thin mirror, the orange ribbon, a good umbrella, the last shovel, "
    "a dozen buttons, the yellow hat, some dusty jars, a huge puzzle, the azure beads, both violins, a rough stone, the beige coat"
)
_EAT = _words("ate, cooked, tasted, served, shared, ordered, enjoyed, refused, wanted, finished")
_FOOD = _words(
    "the sour cherries, a juicy peach, the fish soup, some warm toast, fresh bread and cheese, the vanilla pudding, a bowl of rice, "
    "the roasted nuts, sweet garlic sauce, a cup of cocoa, the thick yogurt, a large mushroom pie, boiled eggs, the chewy noodles, "
    "lamb with thyme, a jar of honey, the spicy sausage, cold lemonade, four plums, the oatmeal"
)
_SENSE = _words("watched, heard, followed, noticed, feared, chased, liked, drew, saw")
_NATURE = _words(
    "the gray wolf, a noisy goose, the quiet river, the full moon, a distant thunder cloud, the wild horses, a golden fox, "
    "the deep ocean, a busy squirrel, the rough waves, a small owl, the purple sunset, a thirsty camel, the early birds, "
    "the shining stars, a large toad, the snowy valley, five young deer, the buzzing bees, a lazy zebra"
)
_WORK = _words("repaired, painted, cleaned, built, opened, closed, measured, checked, bought, showed us")
_THING = _words(
    "the front door, the kitchen shelf, a wooden bridge, the garden fence, the narrow hallway, a rusty engine, the garage roof, "
    "the school piano, a leaky boat, the tower clock, the bathroom floor, a strong cage, the village church, the old tool shed, "
    "a stone path, the engine room, the barn windows, the third drawer"
)
_GO = _words("laughed, slept, waited, danced, jumped, sang, walked home, sat alone, cried, fished, argued, rested, shouted, marched")
_WHERE = _words(
    "near the church, under the bridge, behind the house, at the station, by the lake, in the rain, across the square, on the beach, "
    "beside the fire, in the garage, on the roof, through the night, between the trees, at school, among the crowd, in the valley"
)
_WHEN = _words(
    "today, at dawn, last week, on Thursday, before lunch, this morning, in June, again, at night, yesterday, at noon, after school"
)
_MANY = _words(
    "green apples, these shoes, our horses, those candles, the bells, her ideas, your gloves, both engines, old songs, cheap toys, "
    "the potatoes, his answers, wool blankets, the judges, long journeys, these violins, my pictures, her cousins, the boxes, young birds"
)
_ARE = _words("are, were, seem, looked, are not, were never, are still, will be, can be, were always")
_HOW = _words(
    "very quiet, too small, rather strange, quite heavy, hard to find, worth the trouble, awfully loud, good enough, unusual here, "
    "better than ours, far away, a joy to watch, hard to choose, just the same, nothing new, a rare sight, a huge surprise, part of this"
)
_PLEASE = _words("please, now, just, quickly, first, then, never, always")
_DO = _words("hold, push, lift, fold up, throw me, save, choose, turn over, keep, check, leave, bring, watch, use, wash, catch")

_TENS = _words("twenty, thirty, forty, fifty, sixty, seventy, eighty, ninety")
_ONES = _words("one, two, three, four, five, six, seven, eight, nine")
_UNIT = _words("dollars, miles, pounds, degrees, minutes, pages, votes, gallons")
_FIRST = _words("Olivia, Jonathan, Beatrice, Samuel, Ingrid, Matthew, Yolanda, Frederick, Genevieve, Arthur, Penelope, Dominic")
_LAST = _words("Whitfield, Novak, O'Connor, Sanchez, Thornbury, Jefferson, Yamada, Goldberg, Vaughan, Abernathy, Kowalski, Hughes")
_TITLE = _words("Doctor, Professor, Captain, Judge, Senator, Major")
_STREET = _words("Maple Avenue, Jefferson Street, Church Road, Harbor Lane, Sycamore Drive, Union Square, Orchard Court, Fifth Avenue")
_CITY = _words("Boston, Chicago, Denver, Seattle, Houston, Atlanta, Portland, Memphis")
_GOODS = _words("eggs, lemons, candles, onions, peppers, matches, spoons, oranges, mushrooms, buttons, sponges, peaches, bottles, cheeses")
_ASK = _words("why, where, when, how")
_YES_NO = _words("did, could, should, would, can, will")
_BASE = _words(
    "open the window, find the answer, visit your aunt, leave so early, hear that noise, pay the bill, catch the ferry, join us, "
    "choose the color, measure the height, change the subject, borrow the van"
)

_WER = _words(
    "der Bäcker, meine Schwester, unser Lehrer, die junge Ärztin, ein alter Fischer, der Nachbar, das Mädchen, mein Bruder, die Köchin, "
    "ein müder Fahrer, der Junge, seine Tochter, die Königin, der Förster"
)
_TUT = _words("sucht, findet, kauft, verkauft, holt, bringt, versteckt, braucht, zeichnet, verliert, prüft, trägt")
_WAS = _words(
    "das rote Buch, eine schwere Kiste, den goldenen Schlüssel, die kleine Katze, ein gelbes Boot, den zerrissenen Mantel, "
    "zwölf weiße Knöpfe, die grüne Flasche, einen hohen Stuhl, das frische Brot, den süßen Kuchen, die alte Uhr, fünf Äpfel, eine Tasse Tee"
)
_WANN = _words(
    "heute früh, am Donnerstag, nach der Schule, im Garten, vor dem Haus, ohne Hilfe, am Bahnhof, jede Woche, in der Küche, bei Regen, "
    "am großen Fluss, schon wieder"
)

_OPEN = _words(
    "did you see, have you found, who took, where is, do you want, can you bring me, have you sold, who broke, did she keep, shall we buy"
)
_REPLY = ("yes,", "no,", "well,", "perhaps", "I think", "surely")


def _pattern(*slots: Sequence[str] | str, end: str = ".") -> Say:
    """One word of each list in turn, capitalised and closed; a plain string stands for itself."""

    def say(draw: random.Random) -> str:
        text = " ".join(slot if isinstance(slot, str) else draw.choice(slot) for slot in slots)
        return text[0].upper() + text[1:] + end

    return say


def _number(draw: random.Random) -> str:
    return f"{draw.choice(_TENS)} {draw.choice(_ONES)}"


def _amount(draw: random.Random) -> str:
    return f"It cost {draw.choice(_ONES)} hundred and {_number(draw)} {draw.choice(_UNIT)}."


def _list(draw: random.Random) -> str:
    first, *rest = draw.sample(_GOODS, 4)
    return f"{first.capitalize()}, {rest[0]}, {rest[1]}, and {draw.choice(_ONES)} {rest[2]}."


def _name(draw: random.Random) -> str:
    return f"{draw.choice(_TITLE)} {draw.choice(_FIRST)} {draw.choice(_LAST)} met {draw.choice(_FIRST)} {draw.choice(_LAST)}."


def _address(draw: random.Random) -> str:
    return f"Write to {_number(draw)} {draw.choice(_STREET)}, {draw.choice(_CITY)}."


_PLAIN: tuple[Say, ...] = (
    _pattern(_WHO, _CARRY, _OBJECT),
    _pattern(_WHO, _CARRY, _OBJECT),
    _pattern(_WHO, _EAT, _FOOD),
    _pattern(_WHO, _SENSE, _NATURE),
    _pattern(_WHO, _WORK, _THING),
    _pattern(_WHO, _GO, _WHERE, _WHEN),
    _pattern(_WHEN, _WHO, _GO, _WHERE),
    _pattern(_MANY, _ARE, _HOW),
    _pattern(_PLEASE, _DO, _OBJECT),
)
_OTHER: tuple[Say, ...] = (
    _amount,
    _pattern(_ASK, _YES_NO, _words("they, you, we, she"), _BASE, end="?"),
    _list,
    _name,
    _address,
    _pattern(_YES_NO, _words("he, you, they, we"), _BASE, end="?"),
)
_GERMAN: tuple[Say, ...] = (_pattern(_WER, _TUT, _WAS, _WANN), _pattern(_WANN, _TUT, _WER, _WAS))
_TURNS: tuple[Say, ...] = (_pattern(_OPEN, _OBJECT, _WHEN, end="?"), _pattern(_REPLY, _WHO, _CARRY, "it", _WHEN))
_TERM = "{}"
_CARRIERS: tuple[Say, ...] = (
    _pattern(_WHO, "asked about", _TERM, _WHEN),
    _pattern("the word", _TERM, "was written", _WHERE),
    _pattern("please say", _TERM, "once more for", _WHO),
    _pattern(_WHO, "read a book about", _TERM),
    _pattern("this page explains", _TERM, "to", _WHO),
)
_OTHER_CARRIERS: tuple[Say, ...] = (
    _pattern("nobody", _WHERE, "had heard of", _TERM),
    _pattern("in the end", _TERM, "was what", _WHO, "needed"),
    _pattern("is", _TERM, "something that", _WHO, "wanted", end="?"),
)


def plain(count: int, seed: int) -> list[str]:
    """Different short English statements and requests of 4 to 8 words; a longer list starts with the shorter one."""
    return _draw(count, seed, _PLAIN, "plain", words=8)


def other(count: int, seed: int) -> list[str]:
    """Different English texts of other kinds in turn: amounts, questions, lists, names, addresses."""
    return _draw(count, seed, _OTHER, "other")


def german(count: int, seed: int) -> list[str]:
    return _draw(count, seed, _GERMAN, "german")


_GRAMMARS = {"en": plain, "de": german}
"""by the first part of a language's name"""
OF_EVERY_KIND = "en"
"""the language of all kinds: others have statements only"""


def same_language(one: str, other: str) -> bool:
    """Do both have the same sentences, as "en-us" and "en-gb" have?"""
    return one.partition("-")[0] == other.partition("-")[0]


def in_language(count: int, seed: int, language: str) -> list[str]:
    """Different statements in a language, such as "en-us" or "de". ConfigError for one that there is no grammar of."""
    kind = language.partition("-")[0]
    if kind not in _GRAMMARS:
        raise ConfigError(f"there are no sentences in {language!r}: take a language that starts with {' or '.join(_GRAMMARS)}")
    return _GRAMMARS[kind](count, seed)


def about(terms: Sequence[str], each: int, seed: int, others: bool = False) -> list[tuple[str, str]]:
    """(term, sentence that holds it): `each` different sentences for every term, in turn.

    `others`: of the sentences that are kept for tests, none of which is like one of the rest.
    """
    carriers, said = _OTHER_CARRIERS if others else _CARRIERS, []
    for number, term in enumerate(terms):
        moved = carriers[number % len(carriers) :] + carriers[: number % len(carriers)]
        texts = _draw(each, seed, moved, f"{'other ' * others}about {term}", words=16)
        said.append([(term, text.replace(_TERM, term)) for text in texts])
    return [pair for one_of_each in zip(*said) for pair in one_of_each]


def dialogues(count: int, turns: tuple[int, int], seed: int) -> list[list[str]]:
    """Questions and replies in turn, as many as `turns` allows, lowest and highest; a longer list starts with the shorter one."""
    lengths = random.Random(f"turns {seed}")
    wanted = [lengths.randint(*turns) for _ in range(count)]
    needed = sum(-(-n // 2) for n in wanted)
    asked, replied = (_draw(needed, seed, (say,), f"dialogue {k}") for k, say in enumerate(_TURNS))
    pairs = iter(zip(asked, replied))
    return [[text for pair in (next(pairs) for _ in range(-(-n // 2))) for text in pair][:n] for n in wanted]


def _draw(count: int, seed: int, patterns: Sequence[Say], kind: str, words: int = 12) -> list[str]:
    draw = random.Random(f"{kind} {seed}")
    found: dict[str, None] = {}
    for attempt in range(20 * count + 100):
        if len(found) == count:
            return list(found)
        text = patterns[attempt % len(patterns)](draw)
        if len(text.split()) <= words:
            found.setdefault(text)
    if len(found) == count:
        return list(found)
    raise ConfigError(f"no {count} different sentences of the kind {kind!r} (the grammar gave {len(found)}): ask for fewer utterances")
