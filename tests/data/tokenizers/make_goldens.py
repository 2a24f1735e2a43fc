"""Makes the goldens of this folder with Hugging Face's tokenizers (README.md). Usage: make_goldens.py REPOSITORY_ROOT

pretokenizer_splits.json  [{text, deepseek_v3: [piece], qwen2: [piece], llama3: [piece]}]
tiny-r1.json              [{text, ids, decoded}] for tools/models/tiny-r1/tokenizer.json
nfc.json                  [{text, nfc}]
deepseek-r1/random.json   [{bytes (hexadecimal, not all valid UTF-8), ids}]
"""
import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import Regex, Tokenizer, pre_tokenizers

from random_texts import draw_text

PUNCTUATION_WORD = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REGEXES = {
    "deepseek_v3": [
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        PUNCTUATION_WORD + r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + TAIL,
    ],
    "qwen2": [CONTRACTION + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL],
    "llama3": [CONTRACTION + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL],
}
# Parts that meet the corners of the regexes; all assigned before Unicode 14, the version of Debian 12's PCRE2.
PARTS = [
    "a", "b", "s", "S", "t", "re", "'", "’", "\u017f", "\u212a", "1", "23", "4567", " ", "  ", "\n", "\r\n", "\t", "\x0b",
    "\u0085", "\u00a0", "\u180e", "\u200b", "\u2003", "\u2028", "\u3000", ".", "!", "[", "\\", "]", "^", "`", "~", "<",
    "｜", "▁", "|", "é", "e\u0301", "\u0301", "\u0323", "\u0307", "각", "\u1100\u1161\u11a8", "한", "中", "一", "龥", "龦",
    "ぁ", "ヿ", "の", "क्", "ि", "🦙", "👨‍👩‍👧", "½", "Ⅷ", "٣", "\x00", "\x01", "\x1c", "\x7f", "\ufeff", "\ufffd", "\ue000",
    "$", "+", "<think>", "</think>", "<｜User｜>", "<｜Assistant｜>", "<｜tool", "'ll", "'VE", "\u212b", "\u0344", "\u0f73",
    "The quick", " brown fox", "don't", "I'M", " x = y;\n", "    return 0;\n", "Größe", " нещо", "第二章",
]


def texts(count):
    draw = random.Random(20)
    return ["".join(draw.choice(PARTS) for _ in range(draw.randint(1, 24))) for _ in range(count)]


def write(path, rows):
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    path.write_text("[\n" + lines + "\n]\n")


def main():
    root = pathlib.Path(sys.argv[1])
    here = root / "tests/data/tokenizers"

    splitters = {
        name: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(regex), "isolated") for regex in regexes])
        for name, regexes in REGEXES.items()
    }
    write(
        here / "pretokenizer_splits.json",
        [
            {"text": text, **{name: [piece for piece, _ in s.pre_tokenize_str(text)] for name, s in splitters.items()}}
            for text in texts(200)
        ],
    )

    tokenizer = Tokenizer.from_file(str(root / "tools/models/tiny-r1/tokenizer.json"))
    rows = []
    for text in texts(200):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
    write(here / "tiny-r1.json", rows)

    marks = ["a", "e", "o", "\u0301", "\u0323", "\u0307", "\u0316", "\u05b0", "\u1100", "\u1161", "\u11a8", "\u212b",
             "\u0344", "\u0958", "\uf900", "ﬁ", "x", "\u1e9b", "가", "\u0f73", "\u0f71", "ὰ", "\U0001d15e", "\u0338", "="]
    draw = random.Random(21)
    samples = ["".join(draw.choice(marks) for _ in range(draw.randint(1, 16))) for _ in range(200)]
    write(here / "nfc.json", [{"text": s, "nfc": unicodedata.normalize("NFC", s)} for s in samples])

    tokenizer = Tokenizer.from_file(str(here / "deepseek-r1/tokenizer.json"))
    draw = random.Random(22)
    rows = []
    while len(rows) < 250:
        text = draw_text(draw)
        repaired = text.decode("utf-8", "replace")
        # Characters that Unicode 14 had not assigned have other classes in newer tables.
        if any(unicodedata.category(c) == "Cn" for c in repaired):
            continue
        rows.append({"bytes": text.hex(), "ids": tokenizer.encode(repaired, add_special_tokens=False).ids})
    write(here / "deepseek-r1/random.json", rows)


main()
