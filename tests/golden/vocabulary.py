"""Two tiny vocabularies of one length for GGUF files: sentencepiece pieces and byte-level pairs, both with all bytes."""

SPECIALS = ["<unk>", "<s>", "</s>"]
PIECES = ["▁t", "he", "▁the", "in", "▁a", "er", "an", "▁"] + list("etaoinsrhldcumfpgwybvkxjqz")
PAIRS = """Ġ t|h e|i n|Ġ a|r e|o n|Ġt he|e r|Ġ s|a t|Ġ w|Ġ o|e n|Ġ c|i t|i s|a n|o r|e s|Ġ b|e d|Ġ f|in g|Ġ p|o u|Ġa n
a r|a l|Ġt o|Ġ m|Ġo f|Ġ in|Ġ d|Ġ h|Ġan d|l l""".replace("\n", "|").split("|")
END = "<|endoftext|>"
LENGTH = len(SPECIALS) + 256 + len(PIECES)
assert LENGTH == 256 + len(PAIRS) + 1


def byte_letters():
    """GPT-2's letter for each byte: itself where it prints, the next unused one from 256 on otherwise."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printing}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(printing)))
    return letters


def byte_tokens():
    """The 256 letters in GPT-2's order: the printing bytes first, then the others."""
    return sorted(byte_letters().values(), key=ord)


def write(writer, kind):
    # Here, so that the rest needs nothing beyond Python.
    from gguf import TokenType

    if kind == "llama":
        tokens = SPECIALS + [f"<0x{byte:02X}>" for byte in range(256)] + PIECES
        types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * len(types) + [-float(rank) for rank in range(len(PIECES))])
        writer.add_token_types(types + [TokenType.NORMAL] * len(PIECES))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    writer.add_token_list(byte_tokens() + [pair.replace(" ", "") for pair in PAIRS] + [END])
    writer.add_token_types([TokenType.NORMAL] * (LENGTH - 1) + [TokenType.CONTROL])
    writer.add_token_merges(PAIRS)
    writer.add_bos_token_id(LENGTH - 1)
    writer.add_eos_token_id(LENGTH - 1)
