"""Golden token ids from the Python packages `tokenizers` and `sentencepiece`.

    oracle.py golden DIR            trains small tokenizers on the text below and writes them with golden ids into DIR
    oracle.py shared SHARED DIR     writes golden ids for the tokenizers under SHARED into DIR

A golden file is JSON: `cases`, a list of [text, ids with special tokens, ids without, decoded text].
"""

import io
import json
import os
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "", " ", "  ", "   ", "a", "\n", "\t", "\n\n", "\r\n\r\n  \r\n\t\tx", "\t\n", "Hello world", " Hello world",
    "Hello World!", " Hello, world!", "   lead", "trail   ", "a  b   c    d", "Hello, y'all! How are you 😁 ?",
    "I'LL we'Ve 'S it's they'd", " '  ''s", "ied 4 ½ months", "3.14159 1,234,567 ½ ٣٤٥ Ⅷ 0x1F", "333333333 3 33 333",
    "w048 7tuijk dsdfhu", "Führer", "нещо на Български", "កាន់តែពិសេសអាចខលចេញ", "日本語のテキスト。中文文本，测试。한국어 텍스트",
    "مرحبا بالعالم שלום עולם", "हिन्दी பரிசோதனை ไทยไม่มีช่องว่าง", "ኣማርኛ ქართული Հայերեն Ελληνικά",
    "e\u0301 cafe\u0301 caf\u00e9 a\u0323\u0302 \u1e69", "\u0000\u0001\u0002\x7f\x1b[0m\x85", "\u212b \ufb01 \u2460 ㎏ ㋿",
    "a\u00a0b\u2003c\u3000d\u200be\u200df", "👩‍👩‍👧‍👦👍🏽🇩🇪 \U0001f468\u200d\U0001f4bb", "🚀 (normal) 😶‍🌫️ ✅ 🦙.cpp",
    "def f(x):\n    return x**2  # ok\n\n\nclass A:\n\tpass\n", 'fn main() { println!("{}", 1 << 3); }',
    "https://example.com/?q=1&r=%20#frag", "<html><body class='x'>&amp;</body></html>", "▁▁x ▁ y", "<0x0A><0xE6>",
    "\ufeffbom \ufffd \U0010ffff", "ＦＵＬＬ　ｗｉｄｔｈ", "ı İ ß ſ", "x" * 300, " " * 120 + "x", "-" * 77, "ab" * 90,
    "<s>", "a<s>b", "</s> x", "<unk>", "<|endoftext|>hi <|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "<s> <s>  </s>x<s></s>", "<tool> x <tool>\n", "...!?,;:'\"()[]{}", "x'ſ y'LL z'Re", "snake_case camelCase SCREAMING kebab-case",
]

SENTENCES = """The river runs past the old mill and down to the harbour. In spring the miller's children count the boats.
A boat with a red sail came in at noon; its captain, Ada Brook, sold 12 barrels of salt for 340 coins.
"Have you seen the lighthouse keeper?" she asked. Nobody had seen him since Tuesday, 4 May 1887.
Die Mühle am Fluss mahlt langsam. Le moulin tourne; l'été arrive. El río baja crecido. Река течёт мимо мельницы.
Numbers: 1, 22, 333, 4444. Code: let x = y + 1; if (x > 2) { return x; } The end of the story is not yet written.
川は古い水車小屋のそばを流れる。孩子们在数船。They're counting, they've counted, they'll count again and again.
""" * 3


def write(path, cases):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"cases": cases}, file, ensure_ascii=True, separators=(",", ":"))


def hf_cases(tokenizer, texts):
    cases = []
    for text in texts:
        special = tokenizer.encode(text).ids
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append([text, special, plain, tokenizer.decode(plain, skip_special_tokens=False)])
    return cases


def spm_cases(processor, texts):
    # Control tokens in text are Hugging Face's business, not sentencepiece's; a zero byte ends its text.
    texts = [text for text in texts if not any(mark in text for mark in ["<s>", "</s>", "<unk>", "\0"])]
    return [[t, [processor.bos_id()] + processor.encode(t), processor.encode(t), processor.decode(processor.encode(t))]
            for t in texts]


def train_spm(kind, path=None, **options):
    import sentencepiece
    model = io.BytesIO()
    if kind == "unigram":
        options["hard_vocab_limit"] = False
    options = {"vocab_size": 420, "byte_fallback": True, "normalization_rule_name": "identity", **options}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES.splitlines()), model_writer=model, model_type=kind, minloglevel=2,
        num_threads=1, **options)
    if path:
        with open(path, "wb") as file:
            file.write(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def bpe(name, out):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<s>", "</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(SENTENCES.splitlines(), trainer)
    from tokenizers import AddedToken
    tokenizer.add_special_tokens([AddedToken("<tool>", lstrip=True, rstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("   ", normalized=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer.save(os.path.join(out, name + ".json"), pretty=False)
    return tokenizer


def unigram(name, out):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>",
                                      show_progress=False)
    tokenizer.train_from_iterator(SENTENCES.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer.save(os.path.join(out, name + ".json"), pretty=False)
    return tokenizer


def golden(out):
    for name, make in [("bpe", bpe), ("unigram", unigram)]:
        make(name, out)
        write(os.path.join(out, name + ".golden.json"), hf_cases(Tokenizer.from_file(f"{out}/{name}.json"), TEXTS))
    for name, kind, options in [
            ("spm_bpe", "bpe", {"user_defined_symbols": ["<tool>", "▁▁▁"], "remove_extra_whitespaces": False}),
            ("spm_unigram", "unigram", {"user_defined_symbols": ["<tool>"], "byte_fallback": False, "vocab_size": 220})]:
        processor = train_spm(kind, os.path.join(out, name + ".model"), **options)
        write(os.path.join(out, name + ".golden.json"), spm_cases(processor, TEXTS))


def qwen2(folder):
    tokenizer = Tokenizer(models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def shared(root, out):
    texts = list(TEXTS)
    for name in ["wiki.test.raw", "tinystories_valid_part.txt", "c4_en_sample.jsonl"]:
        with open(f"{root}/data/text/{name}", "rb") as file:
            text = file.read(120_000).decode("utf-8", "ignore")
        texts += [text[at:at + 2000] for at in range(0, len(text), 2000)]
    files = {name: f"{root}/data/tokenizers/{name}/tokenizer.json" for name in ["gpt2", "phi-2", "smollm"]}
    files |= {name: f"{root}/models/{name}/tokenizer.json" for name in ["stories260K", "atlas"]}
    for name, path in files.items():
        write(f"{out}/{name}.golden.json", hf_cases(Tokenizer.from_file(path), texts))
    write(f"{out}/qwen2.golden.json", hf_cases(qwen2(f"{root}/data/tokenizers/qwen2"), texts))
    for name, kind, options in [
            ("spm_bpe_nfkc", "bpe", {"vocab_size": 500}),
            ("spm_unigram_nfkc", "unigram", {"vocab_size": 470, "add_dummy_prefix": False})]:
        processor = train_spm(kind, f"{out}/{name}.model", normalization_rule_name="nmt_nfkc", **options)
        write(f"{out}/{name}.golden.json", spm_cases(processor, texts))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
