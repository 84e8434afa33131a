"""datatrove's DocumentTokenizer over a folder of Parquet files: run with the Python of its own environment.

Prints the seconds of the run as the last line, without the imports before it.
"""

from __future__ import annotations

import sys
import time

from datatrove.executor import LocalPipelineExecutor  # type: ignore[import-not-found]
from datatrove.pipeline.readers import ParquetReader  # type: ignore[import-not-found]
from datatrove.pipeline.tokens import DocumentTokenizer  # type: ignore[import-not-found]


def main(source: str, tokenizer: str, out: str, tasks: int) -> None:
    """Tokenize on `tasks` processes; each has a file of its own."""
    executor = LocalPipelineExecutor(
        pipeline=[
            ParquetReader(source, text_key="content", id_key="key"),
            DocumentTokenizer(
                f"{out}/tokens",
                local_working_dir=f"{out}/local",
                tokenizer_name_or_path=tokenizer,
                eos_token="<|endoftext|>",
                shuffle_documents=False,
            ),
        ],
        tasks=tasks,
        workers=tasks,
        logging_dir=f"{out}/logs",
    )
    began = time.perf_counter()
    executor.run()
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
