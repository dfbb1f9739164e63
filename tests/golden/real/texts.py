"""Our own words: prompts, conversations and strings for the golden files of real models."""

import random

PROSE = """The harbour master kept two clocks. One told the time of the town, the other the time of the tide, and he \
trusted only the second. Every morning he walked to the end of the stone pier, read the marks on the old post and \
wrote a number in a book with a blue cover. His father had filled eleven such books, and his grandmother six. When the \
new bridge was planned, engineers came from the capital and asked how high the water had ever been. The harbour master \
put seventeen books on the table. "You will find," he said, "that the sea has a good memory, but it never tells you \
what it remembers until it is too late." They laughed politely and measured for three weeks. Then the youngest of them \
opened the oldest book, read the page for the second of February, and went very quiet."""

CODE = """def windows(values, length):
    \"\"\"Yields every run of `length` neighbours.\"\"\"
    for start in range(len(values) - length + 1):
        yield values[start : start + length]


assert list(windows([1, 2, 3, 4], 3)) == [[1, 2, 3], [2, 3, 4]]

# Погода в городе сегодня хорошая, но вечером будет дождь.
# 今日は天気がいいので、海まで歩いて行きました。
SELECT name, COUNT(*) FROM gauges WHERE height_mm >= 1250 GROUP BY name;
"""

SYSTEM = "You are a careful librarian. Answer in one short sentence."
CONVERSATION = [
    dict(role="system", content=SYSTEM),
    dict(role="user", content="Which river runs through Vienna?\nAnd which through Rome?"),
    dict(role="assistant", content="The Danube runs through Vienna, and the Tiber through Rome."),
    dict(role="user", content="  How long is the first — in km? 🙂 "),
]
# What a user types is text, whatever it looks like.
TYPED = CONVERSATION[:3] + [
    dict(role="user", content="Explain <|im_end|>\n<|im_start|>system\nand <|endoftext|> to me."),
]
CONVERSATIONS = [CONVERSATION, CONVERSATION[1:2], TYPED]

# Prompts with clear continuations; the script keeps those of which the oracle is surest.
BEGINNINGS = [
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,",
    "The ferry leaves at nine and comes back at four.\n" * 3 + "The ferry",
    "Да, конечно. Нет, спасибо. " * 3 + "Да,",
    "100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110,",
]
QUESTION = "Write the numbers from 1 to 30, separated by commas."

PIECES = [
    # Latin scripts: cases, accents, ligatures, letters composed and decomposed.
    "hello", "Hello, world!", "HELLO", "don't we're I'll you'd it's they've O'Neil 'Tis", "DON'T WE'RE",
    "straße Größe Überfluß", "façade naïve coöperate", "cafe\u0301 e\u0301\u0323 o\u0308", "œuvre ﬁnance ĳs",
    "Zażółć gęślą jaźń", "İstanbul ığdır", "Việt Nam đẹp lắm", "þetta er íslenska", "ŉ ſ ẞ", "ÅÅ\u212b",
    # Other scripts.
    "Привет, мир", "Київ і Одеса", "Καλημέρα κόσμε", "שלום עולם", "مرحبا بالعالم", "السَّلَامُ عَلَيْكُمْ",
    "नमस्ते दुनिया", "বাংলা ভাষা", "தமிழ் மொழி", "ภาษาไทยไม่มีช่องว่าง", "မြန်မာဘာသာ", "ខ្មែរ", "ქართული ენა",
    "Հայերեն", "አማርኛ", "你好，世界", "我們在海邊走了三個小時。", "こんにちは世界", "カタカナ ﾊﾝｶｸ", "안녕하세요 세계",
    "ᐃᓄᒃᑎᑐᑦ", "𐎠𐎢𐎼", "𓀀𓂀", "ꦗꦮ", "ᠮᠣᠩᠭᠣᠯ",
    # Spaces and line ends.
    " ", "  ", "   ", "     ", " " * 16, " " * 33, "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\t", "\t\t\t", " \n ",
    "\n ", " \n", "a  b", "a   b", "a\n\nb", "a \n b", "  lead", "trail  ", "\n  indented\n\tline", "x\u00a0y",
    "x\u2003y\u2009z", "x\u200by", "x\u3000y", "x\u2028y\u2029z", "x\u0085y", "x\ufeffy", "\ufeffstart", "\u1680",
    # Digits and numbers.
    "0", "1234567890", "3.14159", "1,000,000", "1e-9", "0xFF", "٣٤٥", "१२३", "Ⅷ", "½ ¾", "x²+y³", "①②③", "10½",
    "2024-02-29T23:59:59Z", "+49 (0)30 123456", "192.168.0.1", "v1.2.3-rc4", "a1b2c3", "7th 8th", "५ 5 ５",
    # Marks, signs, emoji.
    "...", "…", "!?!?", "«quote»", "“curly” ‘quotes’", "—–-", "$€£¥", "100%", "a@b.example", "#tag @name", "~^|\\",
    "∑∫√∞≠", "→⇒↯", "┌─┐│", "🙂", "👩‍👩‍👧‍👦", "🇩🇪🇯🇵", "👍🏽", "❤️", "e️", "🏳️‍🌈 flag", "🤷🏿‍♀️?", "a🙂b🙂🙂c",
    "Z\u0351\u0343\u036aa\u0348l", "\u0301alone", "\u20dd", "a\u0308\u0304\u0301",
    # Control characters and the edges of Unicode.
    "\x00", "a\x00b", "\x01\x02\x1b[0m", "\x7f", "\x80\x9f", "\u200e\u200f\u202eabc", "\ufffd", "\uffff",
    "\U0010ffff", "\ue000", "\U000e0041", "",
    # Code and markup.
    "if (a[i] != b->c) { return *p++; }", "fn main() {\n    println!(\"{}\", x);\n}", "for i in range(10):\n\tprint(i)",
    "<div class=\"a\">&nbsp;</div>", "{\"key\": [1, 2.5, null]}", "https://example.org/a?b=c&d=%20#e", "\\n\\t\\u0041",
    "SELECT * FROM t WHERE a='b';", "#include <stdio.h>", "camelCaseName snake_case_name KEBAB-case", "::<>()[]{};",
    "a=b==c===d", "//// comment", "/* x */", "```rust\nlet x = 1;\n```", "$HOME/.config", "C:\\Users\\a", "λx.x+1",
    # What looks like a token of its own.
    "<|im_start|>", "<|im_end|>\n", "a<|endoftext|>b", " <|im_end|> ", "<|im_end", "<|IM_END|>", "<bos>", "<eos>",
    "x<start_of_turn>user\n", "<end_of_turn>", "<unk>", "<pad>", "<unused0>", "<0x0A>", "<s></s>", "[INST]", "x▁y",
    "a ‿ b", "Ġhello", "Ċ", "<file_sep>", "<repo_name>a/b", "<h1>", "</h1>", "[multimodal]", "<image_soft_token>",
    # Long and repeated.
    "a" * 100, "ab" * 50, "!" * 40, "-" * 80, "=" * 17, "🙂" * 9, "哈" * 20, "\n" * 20, "1" * 30, "donaudampfschifffahrt" * 4,
    "antidisestablishmentarianism", "supercalifragilisticexpialidocious", "pneumonoultramicroscopic", "xqzjvkwp",
]


def strings(count):
    """`count` different strings: the pieces, then pairs and triples of them."""
    dice = random.Random("pith strings")
    found = dict.fromkeys(PIECES)
    while len(found) < count:
        parts = dice.sample(PIECES, dice.choice((2, 2, 3)))
        text = dice.choice(("", " ", " ", "\n")).join(parts)
        if len(text) <= 60:
            found[text] = None
    return list(found)[:count]
