"""How many tokens a unit will have, before it is tokenized: what placement weighs.

A data set's tokens per byte of text are measured once for each tokenizer and kept, so that the same data is placed the
same way again: what was placed by an estimate must not move because the counts are known now.
"""

from __future__ import annotations

from itertools import islice

import pyarrow.compute as pc

from data_contracts.errors import ObjectMissing
from training.shards.rows import CuratedRows
from training.shards.tokenizing import token_dtype
from training.tokenizer import Tokenizer
from training.workspace import Workspace

FORMAT = 1
# English under a vocabulary of some tens of thousands; used where there is no tokenizer to measure with.
TOKENS_PER_BYTE = 0.25
_UNITS, _SAMPLE_BYTES = 8, 1 << 16
# Beside its tokens a record has its id, its offset and its count of bytes; a file has a schema and a footer.
_RECORD_BYTES, _FILE_BYTES = 32 + 4 + 8 + 8, 1500


def density_key(tokenizer: str, slug: str) -> str:
    """Key in the home store of a data set's tokens per byte under a tokenizer."""
    return f"tokenizers/densities/{tokenizer}-{slug}.json"


def density(workspace: Workspace, one: CuratedRows, tokenizer: Tokenizer | None, keep: bool) -> float:
    """Return a data set's tokens per UTF-8 byte of text: as it was measured first, else by a sample of its units.

    `keep` puts a new measurement into the home store; without a tokenizer it is `TOKENS_PER_BYTE`.
    """
    if tokenizer is None:
        return TOKENS_PER_BYTE
    key = density_key(tokenizer.sha, one.contract.slug)
    try:
        known = workspace.home.get_json(key)
        return float(known["tokens"]) / float(known["text_bytes"])
    except ObjectMissing:
        pass
    tokens = size = 0
    step = -(-len(one.units) // _UNITS)
    for unit in one.units[:: max(step, 1)]:
        taken = 0
        for batch in islice(one.batches(unit.partition, unit.split), 4):
            text = pc.drop_null(batch.column("text"))
            ends = pc.cumulative_sum(pc.binary_length(text))
            text = text.slice(0, (pc.sum(pc.less(ends, _SAMPLE_BYTES - taken)).as_py() or 0) + 1)
            tokens += sum(len(ids) + 1 for ids in tokenizer.encode_batch(text.to_pylist()))
            taken += pc.sum(pc.binary_length(text)).as_py() or 0
            if taken >= _SAMPLE_BYTES:
                break
        size += taken
    if not size:
        return TOKENS_PER_BYTE
    if keep:
        document = {"format": FORMAT, "tokenizer": tokenizer.sha, "dataset": one.contract.id}
        workspace.home.ensure_json(key, {**document, "tokens": tokens, "text_bytes": size})
    return tokens / size


def arrow_bytes(tokens: int, records: int, tokenizer: Tokenizer | None) -> int:
    """Return about how many bytes the shards of so many tokens and records take."""
    wide = tokenizer is not None and token_dtype(tokenizer) == "uint32"
    return tokens * (4 if wide else 2) + records * _RECORD_BYTES + _FILE_BYTES
