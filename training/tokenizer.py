"""Byte-level BPE: trained to the same bytes every time, loaded from a Hugging Face `tokenizer.json`.

The one special token, `<|endoftext|>`, has id 0 and stands before every document. Text is never normalised and
every byte has a token, so decoding gives back exactly what was encoded. A data set's text that happens to spell
`<|endoftext|>` is encoded as ordinary text: a record cannot forge the end of a document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_contracts.canonical import sha256
from data_contracts.errors import CausewayError

END_OF_TEXT = "<|endoftext|>"
END_ID = 0
_SMALLEST = 257  # 256 bytes and the special token

TokenIds = NDArray[np.uint16] | NDArray[np.uint32]


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer; `sha` is the SHA-256 of the `tokenizer.json` bytes it was loaded from."""

    sha: str
    vocab_size: int
    _inner: tokenizers.Tokenizer = field(repr=False, compare=False)

    @property
    def end_id(self) -> int:
        """The id of `<|endoftext|>`."""
        return END_ID

    def encode_batch(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token ids of each text, uint16 when they fit and uint32 otherwise; no special token is added.

        Raises:
            CausewayError: a text holds half of a surrogate pair, which has no UTF-8 form; names its position.
        """
        for index, text in enumerate(texts):
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise CausewayError(
                    f"text {index} of the batch, character {error.start}: a lone surrogate has no UTF-8 form; "
                    "repair the source's encoding or quarantine the record"
                ) from error
        # Not encode_batch_fast: in tokenizers 0.23 it takes 1.3 times the CPU time of encode_batch on the same texts.
        encodings = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return [self._ids(encoding) for encoding in encodings]

    def encode_offsets(self, texts: Sequence[str]) -> list[tuple[TokenIds, NDArray[np.int64]]]:
        """Return each text's token ids and where they stand: int64 [T, 2], the first character and the one after.

        A token that holds a part of a character names the whole of it.
        """
        encodings = self._inner.encode_batch(list(texts), add_special_tokens=False)
        return [(self._ids(one), np.array(one.offsets, dtype=np.int64).reshape(-1, 2)) for one in encodings]

    def _ids(self, encoding: tokenizers.Encoding) -> TokenIds:
        if self.vocab_size <= 1 << 16:
            return np.array(encoding.ids, dtype=np.uint16)
        return np.array(encoding.ids, dtype=np.uint32)

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Return the text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return str(self._inner.decode([int(i) for i in ids], skip_special_tokens=False))


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> bytes:
    """Train byte-level BPE and return the bytes of its `tokenizer.json`; the same texts give the same bytes.

    The order of the texts does not matter (pairs are counted over all of them). The vocabulary is smaller than
    `vocab_size` when the texts run out of pairs. Sennrich et al. 2016 (1508.07909), on bytes as in GPT-2.

    Raises:
        CausewayError: `vocab_size` is below 257, or above 2^32.
    """
    if not _SMALLEST <= vocab_size <= 1 << 32:
        raise CausewayError(f"vocabulary size {vocab_size}: give {_SMALLEST} (the bytes and {END_OF_TEXT}) or more")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        # Without it a byte that the training texts lack would have no token, and its text would be lost.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return (str(tokenizer.to_str(pretty=False)) + "\n").encode("utf-8")


def load_tokenizer(data: bytes) -> Tokenizer:
    """Load a `tokenizer.json`, one that `train_tokenizer` made or one brought along.

    Raises:
        CausewayError: the bytes are no tokenizer, it normalises text, or `<|endoftext|>` is not its id 0.
    """
    try:
        inner = tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # the binding raises bare Exception and ValueError
        raise CausewayError(f"tokenizer {sha256(data)[:12]}: not a tokenizer.json: {error}") from error
    if inner.token_to_id(END_OF_TEXT) != END_ID:
        found = inner.token_to_id(END_OF_TEXT)
        raise CausewayError(
            f"tokenizer {sha256(data)[:12]}: {END_OF_TEXT} has id {found}, not {END_ID}; documents could not be told "
            "apart: bring a tokenizer that has it first"
        )
    if inner.normalizer is not None:
        raise CausewayError(
            f"tokenizer {sha256(data)[:12]}: it normalises text, so what is decoded is not what was encoded; "
            "bring one without a normalizer"
        )
    # Not stored in tokenizer.json, so set here: without it data text can spell the special token.
    inner.encode_special_tokens = True
    inner.no_padding()
    inner.no_truncation()
    return Tokenizer(sha256(data), int(inner.get_vocab_size(with_added_tokens=True)), inner)
