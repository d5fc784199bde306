"""Writes clip_ids.json: byte pairs learnt from phrases, and the phrases' ids with them.

Run from the repository: `python tests/goldens/make_clip_ids.py`. Written from the description of
byte-pair encoding (Sennrich et al., 2016, arXiv 1508.07909) in another way than tokenizers has it:
every merge is applied once, in the order in which they were learnt. For plain text alone.
"""

import json
import pathlib
import re
from collections import Counter
from itertools import pairwise

PHRASES = (
    "",
    "  \n\t ",
    "a photo of a CRACKED bottle, from above",
    "broken_large\r\n8mm  3.14 #12",
    "a photo of a bottle with a crack",
    "a photo of the large bottle with a broken rim",
    "a close-up photo of a damaged capsule",
    "a capsule with a faulty imprint (squeezed!)",
    "a hex bolt with a stripped thread",
    "a dented can, seen from the side",
    "bent pin, 90 degrees",
    "woven fabric with a pulled thread",
    "a missing cap on a bottle",
    "the bottle's rim can't be seen; they're bent, we've cut 'em, I'll poke 12 holes, he'd",
    "die große Straße ist naß",
    "царапина на крышке бутылки",
    "éclat fêlé, pièce fêlée",
    "鉄の表面に傷がある。鉄の傷。",
    "한국어 표면 긁힘",
    "1st 2nd 1234567890",
    "🔧🔧 🔩 ... --- !!! ((a)) [[b]]",
)
WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+")
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
BYTES = {b: chr(b) for b in PRINTABLE} | {b: chr(256 + i) for i, b in enumerate(OTHERS)}


def spell(word):
    symbols = [BYTES[byte] for byte in word.encode()]
    return [*symbols[:-1], f"{symbols[-1]}</w>"]


def merge(symbols, pair):
    result = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def learn(words, count):
    merges = []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        words = [merge(word, merges[-1]) for word in words]
    return merges


def main():
    texts = {phrase: WORDS.findall(phrase.lower()) for phrase in PHRASES}
    merges = learn([spell(word) for words in texts.values() for word in words], 120)
    alphabet = sorted(BYTES.values())
    symbols = [*alphabet, *(f"{symbol}</w>" for symbol in alphabet), *map("".join, merges)]
    numbers = {symbol: i for i, symbol in enumerate(symbols)}
    ids = {}
    for phrase, words in texts.items():
        ids[phrase] = []
        for symbols in map(spell, words):
            for pair in merges:
                symbols = merge(symbols, pair)
            ids[phrase] += [numbers[symbol] for symbol in symbols]
    path = pathlib.Path(__file__).with_name("clip_ids.json")
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in ids.items())
    table = ",\n".join(lines)
    path.write_text(f'{{"merges": {json.dumps(merges)},\n"ids": {{\n{table}}}}}\n')


if __name__ == "__main__":
    main()
