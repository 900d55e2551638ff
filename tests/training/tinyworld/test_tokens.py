from pathlib import Path

from transformers import AutoTokenizer, CLIPTokenizer

from minddiffuser.training.tinyworld.scenes import BACKGROUNDS, COLOURS, CONCEPTS
from minddiffuser.training.tinyworld.tokens import N_TOKENS, write_tokenizer


def test_every_word_is_one_token_and_survives_reopening(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    ids = [tokenizer(word).input_ids for word in ("a", "in", "the", *CONCEPTS, *COLOURS, *BACKGROUNDS)]
    assert all(len(i) == 3 for i in ids)  # start, word, end
    assert len({i[1] for i in ids}) == len(ids)


def test_the_end_token_is_the_highest_and_pads(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("a red house in the sea", padding="max_length", max_length=N_TOKENS).input_ids
    assert len(ids) == N_TOKENS
    assert ids[7] == max(ids) == len(tokenizer) - 1
    assert set(ids[7:]) == {ids[7]}


def test_unknown_text_still_tokenises(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer("Grüße, 象!").input_ids, skip_special_tokens=True).replace(" ", "") == "grüße,象!"


def test_two_writings_are_byte_identical(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tokenizer(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
