"""A small language model for the demo, made on the spot: real GGUF, random weights.

llama.cpp loads and serves it like any other model: real tokens, real usage counts, real streams.
The answers are words without meaning, because nothing was ever learned.
"""

from __future__ import annotations

import os
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

MODEL_NAME = "gatebook-demo-slm"
CONTEXT_TOKENS = 4096

_SEED = 20_240_229
_EMBEDDING = 64
_BLOCKS = 2
_HEADS = 4
_FEED_FORWARD = 128
_RMS_EPSILON = 1e-5
_WEIGHT_DEVIATION = 0.05

# One embedding dimension carries the same number for every token. After normalisation it is a
# constant, so the matching column of the output matrix acts as a bias: it is how a model without
# bias terms is told to prefer words to lone bytes and single letters.
_BIAS_DIMENSION = 0
_BIAS_EMBEDDING = 1.0
_NEVER = -8.0
_LIKELY = 0.0

_WORDS = """
    the of and to in is it for on with as at by from this that are was be has not but can will
    may all one two more some each any other such only also when where how why which who model
    token layer weight prompt answer small language number value field record log access time
    day hour week key user team list item order price report change result system service green
    blue river stone light paper glass bread water house road garden window morning find make
    give take keep send read write open close start stop count sort check show move
""".split()  # noqa: SIM905 -- prose reads better than a hundred quoted lines
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_PUNCTUATION = ".,:;!?'\"()[]{}<>|@#%&*+-=/_\\$"
_SPACE = "\u2581"  # the mark SentencePiece vocabularies use for a space

# Roles in brackets: the vocabulary has no special tokens to mark turns with.
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)

Weights = npt.NDArray[np.float32]


def write_model(path: Path) -> Path:
    """Write the model to `path` (about 0.6 MB, well under a second) and return `path`.

    The same bytes come out every time. The file appears whole or not at all: a process that dies
    here leaves only a `.partial` file, which the next call overwrites.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, "llama")
    vocabulary = _vocabulary()
    _add_metadata(writer)
    _add_vocabulary(writer, vocabulary)
    _add_tensors(writer, vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, path)
    return path


def _vocabulary() -> list[tuple[str, gguf.TokenType]]:
    """Tokens in id order: control, 256 bytes for any input, characters, and words to answer in."""
    tokens = [
        ("<unk>", gguf.TokenType.UNKNOWN),
        ("<s>", gguf.TokenType.CONTROL),
        ("</s>", gguf.TokenType.CONTROL),
    ]
    tokens += [(f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)]
    characters = _SPACE + _LETTERS + _PUNCTUATION
    tokens += [(character, gguf.TokenType.NORMAL) for character in characters]
    tokens += [(_SPACE + word, gguf.TokenType.NORMAL) for word in _WORDS]
    return tokens


def _add_metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_name(MODEL_NAME)
    writer.add_description("Random weights, for demonstrations and tests. It knows nothing.")
    writer.add_license("Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(_EMBEDDING)
    writer.add_block_count(_BLOCKS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_EMBEDDING // _HEADS)
    writer.add_layer_norm_rms_eps(_RMS_EPSILON)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: list[tuple[str, gguf.TokenType]]) -> None:
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in vocabulary])
    writer.add_token_scores([-float(index) for index in range(len(vocabulary))])
    writer.add_token_types([int(kind) for _, kind in vocabulary])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, vocabulary: list[tuple[str, gguf.TokenType]]) -> None:
    random = np.random.default_rng(_SEED)

    def normal(*shape: int) -> Weights:
        return random.normal(0.0, _WEIGHT_DEVIATION, shape).astype(np.float32)

    embedding = normal(len(vocabulary), _EMBEDDING)
    embedding[:, _BIAS_DIMENSION] = _BIAS_EMBEDDING
    output = normal(len(vocabulary), _EMBEDDING)
    output[:, _BIAS_DIMENSION] = [_output_bias(text, kind) for text, kind in vocabulary]
    ones = np.ones(_EMBEDDING, dtype=np.float32)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output_norm.weight", ones)
    writer.add_tensor("output.weight", output)
    for block in range(_BLOCKS):
        prefix = f"blk.{block}"
        writer.add_tensor(f"{prefix}.attn_norm.weight", ones)
        writer.add_tensor(f"{prefix}.ffn_norm.weight", ones)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            writer.add_tensor(f"{prefix}.{name}.weight", normal(_EMBEDDING, _EMBEDDING))
        writer.add_tensor(f"{prefix}.ffn_gate.weight", normal(_FEED_FORWARD, _EMBEDDING))
        writer.add_tensor(f"{prefix}.ffn_up.weight", normal(_FEED_FORWARD, _EMBEDDING))
        writer.add_tensor(f"{prefix}.ffn_down.weight", normal(_EMBEDDING, _FEED_FORWARD))


def _output_bias(text: str, kind: gguf.TokenType) -> float:
    """Words and the end of the text may be answered; the rest is there to read prompts with."""
    spoken = kind == gguf.TokenType.NORMAL and len(text) > 1
    return _LIKELY if spoken or text == "</s>" else _NEVER
