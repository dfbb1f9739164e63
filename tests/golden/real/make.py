#!/usr/bin/env python3
"""Writes smollm2.json, gemma3.json and strings.json: golden values of real models, for tests/tests/real.

    make.py MODELS [--only NAME] [--llama-tokenize PROGRAM]

MODELS has smollm2.gguf (SmolLM2-135M-Instruct, Q4_1) and gemma3.gguf (Gemma 3 270M, Q4_K_M); fetch.sh fetches both.
Oracles: gguf-py decodes the weights; transformers runs them in float32 and fills in the chat template; `tokenizers`
(with the pre-tokenizer that SmolLM2 publishes) and sentencepiece make the ids. With --llama-tokenize, the ids of
llama.cpp are compared too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
import torch
import transformers
import xxhash

sys.path.insert(0, str(Path(__file__).parent.parent))
import layout
import texts
import vocabularies

FOLDER = Path(__file__).parent
KINDS = dict(smollm2=vocabularies.ByteLevel, gemma3=vocabularies.SentencePiece)
STRING_COUNT = 300
TOP_COUNT = 20
POSITION_COUNT = 6
GREEDY_COUNT = 40
PROMPT_COUNT = 3
# Columns that share a scale when activations are rounded: docs/format.md, "Integer activations".
GROUP_COLS = 32


class Source:
    """A GGUF file: its keys, its weights in float32, and transformers' model of both."""

    def __init__(self, path):
        self.path = path
        reader = gguf.GGUFReader(path)
        self.keys = {name: value.contents() for name, value in reader.fields.items()}
        self.arch = self.keys["general.architecture"]
        self.tensors = {
            tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
            for tensor in reader.tensors
        }
        self.network = self.make_network()
        layout.from_gguf(self.arch, self.network, self.tensors)

    def key(self, name):
        return self.keys[f"{self.arch}.{name}"]

    def make_network(self):
        shape = dict(
            vocab_size=len(self.keys["tokenizer.ggml.tokens"]),
            hidden_size=self.key("embedding_length"),
            intermediate_size=self.key("feed_forward_length"),
            num_hidden_layers=self.key("block_count"),
            num_attention_heads=self.key("attention.head_count"),
            num_key_value_heads=self.key("attention.head_count_kv"),
            max_position_embeddings=self.key("context_length"),
            rms_norm_eps=self.key("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings="output.weight" not in self.tensors,
        )
        rope = dict(rope_type="default", rope_theta=self.key("rope.freq_base"))
        if self.arch == "llama":
            config = transformers.LlamaConfig(**shape, rope_parameters=rope)
            kind = transformers.LlamaForCausalLM
        else:
            # What GGUF has no key for: every sixth layer is global, the others have their own base, scores are divided
            # by the root of the key's length.
            config = transformers.Gemma3TextConfig(
                **shape,
                head_dim=self.key("attention.key_length"),
                query_pre_attn_scalar=self.key("attention.key_length"),
                sliding_window=self.key("attention.sliding_window"),
                rope_parameters=dict(full_attention=rope, sliding_attention=rope | dict(rope_theta=10000.0)),
            )
            kind = transformers.Gemma3ForCausalLM
        config._attn_implementation = "eager"
        return kind(config).eval()

    def matrices(self):
        """A checksum of every matrix's values, under transformers' name and in its order of rows."""
        pairs = layout.tensor_names(self.arch, self.network)
        weights = dict(self.network.named_parameters())
        values = ((name, weights[name].detach().numpy()) for name, _ in pairs if weights[name].dim() == 2)
        return {name: xxhash.xxh3_64_hexdigest(numpy.ascontiguousarray(array).tobytes()) for name, array in values}

    def logits(self, ids):
        with torch.no_grad():
            return self.network(torch.tensor([ids])).logits[0].double()

    def logits_of_rounded(self, ids):
        """The logits if the input of every matrix is rounded to 8 bits."""
        modules = [module for module in self.network.modules() if isinstance(module, torch.nn.Linear)]
        hooks = [module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),)) for module in modules]
        try:
            return self.logits(ids)
        finally:
            for hook in hooks:
                hook.remove()


def rounded(x):
    """Activations as Pith rounds them."""
    groups = x.reshape(*x.shape[:-1], -1, GROUP_COLS)
    scale = groups.abs().amax(-1, keepdim=True) / 127
    return (torch.round(groups / scale.clamp_min(torch.finfo(x.dtype).tiny)) * scale).reshape(x.shape)


def top(logits):
    """The most likely tokens after one position."""
    values, ids = logits.topk(TOP_COUNT)
    return ids, values, torch.logsumexp(logits, 0)


def divergence(exact, other):
    """What tests/tests/real/logits.rs computes: over the exact logits' top tokens, the divergence, in which all other
    tokens count as one, and the mean square of the difference of log-probabilities."""
    ids, values, total = top(exact)
    p, q = values - total, other[ids] - torch.logsumexp(other, 0)
    rest_p, rest_q = torch.log1p(-p.exp().sum()), torch.log1p(-q.exp().sum())
    kl = (p.exp() * (p - q)).sum() + rest_p.exp() * (rest_p - rest_q)
    return float(kl), float(((p - q) ** 2).mean())


def logits_of_prompt(source, name, ids):
    exact, other = source.logits(ids), source.logits_of_rounded(ids)
    positions, measured = [], []
    # Spread over the prompt, the last of them at its end.
    for index in range(len(ids) // POSITION_COUNT - 1, len(ids), len(ids) // POSITION_COUNT)[-POSITION_COUNT:]:
        best, values, total = top(exact[index])
        measured.append(divergence(exact[index], other[index]))
        positions.append(
            dict(
                index=index,
                log_sum_exp=round(float(total), 5),
                ids=best.tolist(),
                logits=[round(value, 5) for value in values.tolist()],
            )
        )
    kl, square = numpy.mean(measured, axis=0)
    print(f"  {name}: {len(ids)} tokens; 8-bit activations: KL {kl:.6f}, difference {square**0.5:.4f} nats")
    rounded = dict(rounded_kl=float(f"{kl:.3g}"), rounded_rms=float(f"{square**0.5:.3g}"))
    return dict(name=name, ids=ids, **rounded, positions=positions)


def continuation(source, words, prompt, ends):
    """The greedy continuation, and its smallest distance in logits between the best and the second token."""
    prompt_ids, ids, margin = words.encode(prompt, special=True), [], float("inf")
    fed, cache = torch.tensor([prompt_ids]), None
    with torch.no_grad():
        while len(ids) < GREEDY_COUNT:
            output = source.network(fed, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            values, best = output.logits[0, -1].topk(2)
            margin = min(margin, float(values[0] - values[1]))
            if int(best[0]) in ends:
                break
            ids.append(int(best[0]))
            fed = best[:1].reshape(1, 1)
    start = words.decode(prompt_ids)
    text = words.decode(prompt_ids + ids)[len(start) :]
    return dict(prompt=prompt, prompt_ids=prompt_ids, ids=ids, text=text, least_margin=round(margin, 4))


def greedy(source, words, prompts, ends):
    found = [continuation(source, words, prompt, ends) for prompt in prompts]
    found = [each for each in found if len(each["ids"]) == GREEDY_COUNT]
    found.sort(key=lambda each: -each["least_margin"])
    for each in found:
        print(f"  {each['least_margin']:.3f} {len(each['ids'])} {each['prompt'][-60:]!r} {each['text'][:70]!r}")
    return found[:PROMPT_COUNT]


def tokens(words, strings):
    """The ids of each string, and what all but the last of them decode to: often a part of a character."""
    ids = [words.encode(text, special=False) for text in strings]
    for text, each in zip(strings, ids):
        assert words.decode(each) == words.round_trip(text), (text, words.decode(each))
    return ids, [words.decode(each[:-1]) for each in ids]


def check_with_llama(program, path, strings, ids):
    """Compares with llama.cpp's ids, without a beginning-of-text token."""
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        for string, expected in zip(strings, ids):
            text.write_bytes(string.encode())
            options = ["-m", path, "-f", text, "--ids", "--no-bos", "--no-escape", "--log-disable"]
            done = subprocess.run([program, *options], capture_output=True, text=True)
            found = json.loads(done.stdout) if done.returncode == 0 else done.stderr[-200:]
            if found != expected:
                differ += 1
                print(f"  llama.cpp differs: {string!r}\n    {found}\n    {expected}")
    print(f"  llama.cpp: {len(strings) - differ} of {len(strings)} strings have the same ids")


def make(source, words, prompts, beginnings, strings):
    golden = dict(
        oracle=f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32",
        source=dict(bytes=source.path.stat().st_size, xxh3_64=xxhash.xxh3_64_hexdigest(source.path.read_bytes())),
        matrices=source.matrices(),
        logits=[logits_of_prompt(source, name, words.encode(text, special=True)) for name, text in prompts],
        greedy=greedy(source, words, beginnings, {source.keys["tokenizer.ggml.eos_token_id"]}),
        chat=words.chats(texts.CONVERSATIONS),
    )
    golden["tokens"], golden["decoded_but_last"] = tokens(words, strings)
    return golden


def write(path, golden):
    """One line a list of numbers."""
    lines = json.dumps(golden, ensure_ascii=True, indent=1)
    flat, depth = [], 0
    for line in lines.splitlines():
        word = line.strip()
        is_number = word.rstrip(",").replace(".", "").replace("-", "").replace("e", "").isdigit()
        if (is_number or word in ("]", "],")) and depth:
            flat[-1] += word
            depth = 0 if word.startswith("]") else depth
        else:
            flat.append(line)
            depth = int(word.endswith("["))
    path.write_text("\n".join(flat) + "\n")
    assert json.loads(path.read_text()) == golden


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--llama-tokenize", type=Path)
    options = parser.parse_args()
    strings = texts.strings(STRING_COUNT)
    write(FOLDER / "strings.json", strings)
    for name in [options.only] if options.only else KINDS:
        print(name)
        source = Source(options.models / f"{name}.gguf")
        words = KINDS[name](source.keys)
        chat = words.chats(texts.CONVERSATIONS)
        first = [("chat", chat[0]["text"])] if chat else [("question", "Question: How do bees make honey?\nAnswer:")]
        prompts = first + [("prose", texts.PROSE), ("code", texts.CODE)]
        if source.arch == "gemma3":
            # Longer than its window.
            prompts.append(("long", "\n\n".join([texts.PROSE, texts.CODE] * 2)))
        beginnings = texts.BEGINNINGS + ([words.question(texts.QUESTION)] if chat else [])
        golden = make(source, words, prompts, beginnings, strings)
        if options.llama_tokenize:
            check_with_llama(options.llama_tokenize, source.path, strings, golden["tokens"])
        write(FOLDER / f"{name}.json", golden)


if __name__ == "__main__":
    main()
