"""Finds out which Unicode tables Hugging Face's tokenizers uses and writes runtime/unicode_tables.inc.

Usage: python3.11 make_unicode_tables.py > runtime/unicode_tables.inc     (tokenizers 0.23.3; Python 3.11 has Unicode 14)
Its regexes know Unicode 16, its NFC a version before 11. What is asked for is behaviour: which characters a class matches
beyond Unicode 14, and which marks NFC does not move.
"""
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

assert unicodedata.unidata_version.startswith("14.")
CHARACTERS = [c for c in range(0x80, 0x110000) if not 0xD800 <= c < 0xE000]


def ranges(codepoints):
    found = []
    for c in sorted(codepoints):
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def newer_in_class(name):
    """Characters that \\p{name} of the library's regexes matches and Unicode 14 has not."""
    split = pre_tokenizers.Split(Regex(rf"\p{{{name}}}"), "isolated")
    matched = {ord(piece) for piece, _ in split.pre_tokenize_str("".join(" " + chr(c) for c in CHARACTERS)) if len(piece) == 1}
    in_14 = {c for c in CHARACTERS if unicodedata.category(chr(c)).startswith(name)}
    assert in_14 <= matched
    return {c for c in matched - in_14 if c >= 0x80}


def unmoved_marks():
    """Marks of Unicode 14 that NFC does not bring into their order."""
    nfc = normalizers.NFC()
    unmoved = set()
    for c in CHARACTERS:
        own = unicodedata.combining(chr(c))
        if own == 0 or unicodedata.decomposition(chr(c)):
            continue
        other = "\u0316" if own > 220 else "\u0334" if own > 1 else "\u0301"
        text = "x" + (chr(c) + other if own > unicodedata.combining(other) else other + chr(c))
        if nfc.normalize_str(text) != unicodedata.normalize("NFC", text):
            unmoved.add(c)
    return unmoved


def uncomposed():
    """Characters whose decomposition NFC does not compose, and its second part."""
    nfc = normalizers.NFC()
    found = set()
    for c in CHARACTERS:
        parts = unicodedata.normalize("NFD", chr(c))
        if parts != chr(c) and nfc.normalize_str(parts) != unicodedata.normalize("NFC", parts):
            found |= {c, ord(parts[-1])}
    return found


def main():
    newer = {name: newer_in_class(name) for name in "LMNPS"}
    print("// Made by tests/data/tokenizers/make_unicode_tables.py, which says what it is.\n")
    print("/// What a class matches in Unicode 16 and not in 14, as ranges of a PCRE2 class.")
    print("constexpr NewerInClass kNewerInClasses[] = {")
    for name, codepoints in newer.items():
        text = "".join(rf"\x{{{a:x}}}" + (rf"-\x{{{b:x}}}" if b > a else "") for a, b in ranges(codepoints))
        print(f"    {{'{name}', R\"({text})\"}},")
    print("};\n")
    print("/// Characters that the reference's NFC does not know: [first, last], ascending.")
    print("constexpr CodepointRange kUnknownToNfc[] = {")
    for first, last in ranges(unmoved_marks() | uncomposed() | newer["L"] | newer["M"]):
        print(f"    {{0x{first:x}, 0x{last:x}}},")
    print("};")


main()
