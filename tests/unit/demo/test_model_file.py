"""The demo's model file, read back with the format's own reader."""

from __future__ import annotations

from pathlib import Path

import gguf

from gatebook.cli.demo.model_file import CONTEXT_TOKENS, MODEL_NAME, write_model

KIBIBYTE = 1024


def test_the_same_bytes_come_out_every_time(tmp_path: Path) -> None:
    """Two runs write identical files, so that a demo can be repeated exactly."""
    first = write_model(tmp_path / "first.gguf").read_bytes()
    second = write_model(tmp_path / "second.gguf").read_bytes()
    assert first == second
    assert 100 * KIBIBYTE < len(first) < 1024 * KIBIBYTE


def test_the_file_names_the_model_and_its_limits(tmp_path: Path) -> None:
    """A server that loads the file can say which model it is and how to chat with it."""
    reader = gguf.GGUFReader(write_model(tmp_path / "model.gguf"))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.name"] == MODEL_NAME
    assert fields["general.architecture"] == "llama"
    assert fields["llama.context_length"] == CONTEXT_TOKENS
    assert "add_generation_prompt" in fields["tokenizer.chat_template"]


def test_any_text_can_be_read(tmp_path: Path) -> None:
    """The vocabulary holds all 256 bytes, so no prompt can hold something it cannot encode."""
    reader = gguf.GGUFReader(write_model(tmp_path / "model.gguf"))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= set(tokens)
    assert len(tokens) == len(set(tokens)), "a token must have one id"


def test_missing_folders_are_made_and_nothing_is_left_over(tmp_path: Path) -> None:
    """The model appears under its own name only, in a folder that need not exist yet."""
    path = write_model(tmp_path / "cache" / "models" / "model.gguf")
    assert list(path.parent.iterdir()) == [path]


def test_an_earlier_interrupted_write_is_replaced(tmp_path: Path) -> None:
    """What a killed run left behind does not end up in the model."""
    (tmp_path / "model.gguf.partial").write_bytes(b"half a model" * 100_000)
    interrupted = write_model(tmp_path / "model.gguf").read_bytes()
    assert interrupted == write_model(tmp_path / "clean.gguf").read_bytes()
