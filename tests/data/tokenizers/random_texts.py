"""Random texts for tokenizers: all scripts, emoji, combining marks, long runs, control tokens, invalid UTF-8."""

WORDS = ["the", " quick", "don't", "I'LL", "Größe", " нещо", "第二章", "한국어", "عربي", "हिन्दी", "ไทย", "x = y;\n", "    return 0;\n",
         "<think>", "</think>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<|eot_id|>", "<tool_call>", "👨‍👩‍👧", "🇩🇪",
         "e\u0301", "\u1100\u1161\u11a8", "1234567", "3.14", "\r\n", "\n\n", "\t\t", "'ſ", "\u0130", "ﬁ", "½", "Ⅷ", "٣٤٥٦", "http:/" "/a.b/c?d=e"]
# (first, last) of blocks that cover most of what is written; anything else comes from the whole range.
BLOCKS = [(0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xEFF),
          (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x20A0, 0x2BFF), (0x3000, 0x30FF), (0x3400, 0x4DBF),
          (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFE00, 0xFFEF), (0x1F000, 0x1FAFF), (0x10000, 0x10FFFF)]


def draw_text(draw):
    parts = []
    for _ in range(draw.randint(1, 12)):
        kind = draw.random()
        if kind < 0.30:
            parts.append(draw.choice(WORDS).encode())
        elif kind < 0.75:
            first, last = draw.choice(BLOCKS)
            codepoints = [draw.randint(first, last) for _ in range(draw.randint(1, 8))]
            parts.append("".join(chr(c) for c in codepoints if not 0xD800 <= c < 0xE000).encode())
        elif kind < 0.90:
            parts.append(draw.choice([" ", "\t", "\n", "\u00a0", "\u3000", "a", "=", "中"]).encode() * draw.randint(1, 60))
        else:
            parts.append(bytes(draw.randint(0, 255) for _ in range(draw.randint(1, 6))))
    return b"".join(parts)
