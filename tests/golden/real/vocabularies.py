"""The oracles of the tokenizers: Hugging Face's library for byte-level pairs, sentencepiece's for its own pieces."""

import re
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, pre_tokenizers

CONTROL, USER_DEFINED = 3, 4
# Stand for the marks of a chat template, so that those which a message spells are told apart.
PRIVATE = 0xF0000


class ByteLevel:
    """SmolLM2's: digits one by one, then GPT-2's pattern."""

    def __init__(self, keys):
        self.keys = keys
        self.tokens = keys["tokenizer.ggml.tokens"]
        types = keys["tokenizer.ggml.token_type"]
        self.marks = [text for text, type in zip(self.tokens, types) if type == CONTROL]
        self.library = self.make()
        self.library.add_special_tokens(self.marks)

    def make(self):
        vocabulary = {text: index for index, text in enumerate(self.tokens)}
        merges = [tuple(line.split(" ")) for line in self.keys["tokenizer.ggml.merges"]]
        library = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
        digits = pre_tokenizers.Digits(individual_digits=True)
        library.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        library.decoder = decoders.ByteLevel()
        return library

    def encode(self, text, special):
        del special  # It adds none.
        return self.library.encode(text).ids

    def decode(self, ids):
        return self.library.decode(ids, skip_special_tokens=False)

    def round_trip(self, text):
        return text

    def template(self, **over):
        arguments = dict(
            tokenizer_object=self.library,
            bos_token=self.tokens[self.keys["tokenizer.ggml.bos_token_id"]],
            eos_token=self.tokens[self.keys["tokenizer.ggml.eos_token_id"]],
            chat_template=self.keys["tokenizer.chat_template"],
        )
        return transformers.PreTrainedTokenizerFast(**(arguments | over))

    def question(self, text):
        message = [dict(role="user", content=text)]
        return self.template().apply_chat_template(message, tokenize=False, add_generation_prompt=True)

    def chats(self, conversations):
        """The text of each conversation, and its ids; marks that a message spells are text."""
        private = {mark: chr(PRIVATE + index) for index, mark in enumerate(self.marks)}
        template = self.keys["tokenizer.chat_template"]
        for mark, stand_in in private.items():
            template = template.replace(mark, stand_in)
        library = self.make()
        library.add_special_tokens(list(private.values()))
        meant = {library.token_to_id(stand_in): self.library.token_to_id(mark) for mark, stand_in in private.items()}
        plain, apart = self.template(), self.template(tokenizer_object=library, chat_template=template)
        found = []
        for messages in conversations:
            text = plain.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            shown = apart.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = [meant.get(id, id) for id in library.encode(shown).ids]
            spelled = any(mark in message["content"] for message in messages for mark in self.marks)
            # Without such messages, these are transformers' own ids.
            ordinary = plain.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            assert (ids == ordinary) != spelled
            found.append(dict(messages=messages, text=text, ids=ids))
        return found


class SentencePiece:
    """Gemma's: sentencepiece over the file's pieces, scores and types."""

    def __init__(self, keys):
        self.keys = keys
        model = sentencepiece_model_pb2.ModelProto()
        rows = zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.scores"], keys["tokenizer.ggml.token_type"])
        for index, (piece, score, type) in enumerate(rows):
            # GGUF files of Gemma count the unknown piece among the control tokens.
            type = 2 if index == keys["tokenizer.ggml.unknown_token_id"] else type
            # And they spell spaces in pieces that their makers defined.
            piece = piece.replace(" ", "\u2581") if type == USER_DEFINED else piece
            model.pieces.add(piece=piece, score=score, type=type)
        trainer, normalizer = model.trainer_spec, model.normalizer_spec
        trainer.model_type = trainer.BPE
        trainer.byte_fallback = True
        trainer.unk_id, trainer.bos_id = keys["tokenizer.ggml.unknown_token_id"], keys["tokenizer.ggml.bos_token_id"]
        trainer.eos_id, trainer.pad_id = keys["tokenizer.ggml.eos_token_id"], keys["tokenizer.ggml.padding_token_id"]
        normalizer.name, normalizer.add_dummy_prefix = "identity", keys["tokenizer.ggml.add_space_prefix"]
        normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.model"
            path.write_bytes(model.SerializeToString())
            self.library = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.marks = {
            piece: index
            for index, (piece, type) in enumerate(zip(keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]))
            if type == CONTROL
        }
        self.texts_of_marks = {index: piece for piece, index in self.marks.items()}
        longest_first = sorted(self.marks, key=len, reverse=True)
        self.pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode(self, text, special):
        """Marks in the text are tokens, as for transformers; sentencepiece reads what lies between."""
        ids = [self.keys["tokenizer.ggml.bos_token_id"]] if special else []
        for part in self.pattern.split(text):
            ids += [self.marks[part]] if part in self.marks else self.library.encode(part)
        return ids

    def decode(self, ids):
        text, run = "", []
        for id in [*ids, None]:
            if id is None or id in self.texts_of_marks:
                text += self.library.decode(run) + self.texts_of_marks.get(id, "")
                run = []
            else:
                run.append(id)
        return text

    def round_trip(self, text):
        return text.replace("\u2581", " ")

    def chats(self, conversations):
        """The file has no template."""
        assert "tokenizer.chat_template" not in self.keys
        return []
