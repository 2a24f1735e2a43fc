"""Compares Moraine's tokenizer with Hugging Face's on random texts. Run by hand (docs/testing.md).

Usage: compare.py ENCODE_TEXTS COUNT MODEL_DIRECTORY...     ENCODE_TEXTS: build/release/bin/encode_texts
Texts are those of random_texts.py; invalid UTF-8 in them is
repaired to U+FFFD (what Python's and Rust's lossy decoders do) before Hugging Face sees it. Prints the number of texts
that differ, of these how many hold a character that Unicode 14 (Debian 12's PCRE2) had not assigned, and the first few.
"""
import collections
import pathlib
import random
import struct
import subprocess
import sys
import unicodedata

from tokenizers import Tokenizer

from random_texts import draw_text

BATCH = 20000
def compare(program, count, directory):
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    draw = random.Random(2026)
    tally = collections.Counter()
    for begin in range(0, count, BATCH):
        raw = [draw_text(draw) for _ in range(min(BATCH, count - begin))]
        feed = b"".join(struct.pack("<I", len(text)) + text for text in raw)
        answer = subprocess.run([program, str(directory)], input=feed, stdout=subprocess.PIPE, check=True).stdout
        texts = [text.decode("utf-8", "replace") for text in raw]
        expected = tokenizer.encode_batch(texts, add_special_tokens=False)
        at = 0
        for text, encoding in zip(texts, expected):
            number, = struct.unpack_from("<I", answer, at)
            ids = list(struct.unpack_from(f"<{number}i", answer, at + 4))
            at += 4 + 4 * number
            tally["texts"] += 1
            tally["bytes"] += len(text.encode())
            if ids == encoding.ids:
                continue
            tally["differ"] += 1
            if any(unicodedata.category(c) == "Cn" for c in text):
                tally["of these with a character newer than Unicode 14"] += 1
            elif tally["shown"] < 10:
                tally["shown"] += 1
                print(f"  {text!r}\n    ours   {ids}\n    theirs {encoding.ids}")
    print(directory, dict(tally), flush=True)


def main():
    assert unicodedata.unidata_version.startswith("14."), "run with Python 3.11, whose tables are Unicode 14's"
    program, count = sys.argv[1], int(sys.argv[2])
    for directory in sys.argv[3:]:
        compare(program, count, pathlib.Path(directory))


main()
