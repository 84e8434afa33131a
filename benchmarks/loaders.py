"""Other loaders over the same windows, each as its users are told to use it, in a process of its own.

`python -m benchmarks.loaders NAME FILE WINDOW BATCH FOLDER REPEATS`: FILE holds uint16 tokens; writes the data set in the
loader's own format under FOLDER, hands out each window once in a shuffled order, in batches, and prints one JSON
line: seconds of each repeat, and the tokens handed out in one.
"""  # noqa: E501

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "mosaicml-streaming==0.13.0 litdata==0.2.76 boto3 botocore s3transfer jmespath Brotli python-snappy cramjam zstd"
    " catalogue lightning-utilities tifffile"
)
# mosaicml-streaming imports torchvision for its image data sets, which none of this uses.
_NO_VISION = {
    "__init__.py": "",
    "datasets.py": "class VisionDataset: ...\n",
    "transforms/__init__.py": "",
    "transforms/functional.py": "def to_tensor(image): raise NotImplementedError\n",
}


def installed() -> Path | None:
    """Return the folder that holds the other loaders, installed when first asked for; None when they cannot be had."""
    home = ROOT / ".bench" / "loaders-1"
    if (home / "complete").exists():
        return home
    sys.stderr.write(f"installing other loaders into {home}\n")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(home), *PACKAGES.split()]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        return None
    for name, text in _NO_VISION.items():
        (home / "torchvision" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "torchvision" / name).write_text(text)
    (home / "complete").touch()
    return home


def measured(name: str, tokens: Path, window: int, batch: int, folder: Path, repeats: int) -> list[float] | None:
    """Return a loader's tokens per second in each repeat; None when it cannot be had."""
    home = installed()
    if home is None and name != "hf_datasets":
        return None
    arguments = [str(a) for a in (name, tokens, window, batch, folder / name, repeats)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loaders", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(home or ""), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} did not run: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return [found["tokens"] / s for s in found["seconds"]]


def mosaic(windows: np.ndarray[Any, Any], batch: int, folder: Path) -> Callable[[], int]:
    """MosaicML Streaming: MDS shards of one sample a window, local, its default py1e shuffle."""
    from streaming import MDSWriter, StreamingDataset  # type: ignore[import-not-found]
    from streaming.base.util import clean_stale_shared_memory  # type: ignore[import-not-found]

    clean_stale_shared_memory()
    with MDSWriter(out=str(folder), columns={"tokens": f"ndarray:uint16:{windows.shape[1]}"}) as out:
        for row in windows:
            out.write({"tokens": row})
    dataset = StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=1, batch_size=batch)

    def epoch() -> int:
        rows: list[Any] = []
        count = 0
        for sample in dataset:
            rows.append(sample["tokens"])
            if len(rows) == batch:
                count += np.stack(rows).shape[0]
                rows = []
        return count + len(rows)

    return epoch


def litdata(windows: np.ndarray[Any, Any], batch: int, folder: Path) -> Callable[[], int]:
    """LitData: chunks of tokens written by `optimize`, `TokensLoader`, shuffled."""
    import torch
    from litdata import StreamingDataset, TokensLoader, optimize  # type: ignore[import-not-found]

    optimize(
        fn=_Pieces(windows),
        inputs=list(range(0, len(windows), 512)),
        output_dir=str(folder),
        chunk_size=windows.shape[1] * 4096,
        item_loader=TokensLoader(block_size=windows.shape[1]),
        num_workers=1,
    )
    dataset = StreamingDataset(
        str(folder), item_loader=TokensLoader(block_size=windows.shape[1]), shuffle=True, drop_last=False
    )

    def epoch() -> int:
        rows: list[Any] = []
        count = 0
        for sample in dataset:
            rows.append(sample)
            if len(rows) == batch:
                count += torch.stack(rows).shape[0]
                rows = []
        return count + len(rows)

    return epoch


class _Pieces:
    """What `optimize` runs in its own process: one flat tensor of tokens for each 512 windows."""

    def __init__(self, windows: np.ndarray[Any, Any]) -> None:
        self.windows = windows

    def __call__(self, start: int) -> Any:
        import torch

        yield torch.from_numpy(self.windows[start : start + 512].astype(np.int32).reshape(-1))


def hf_datasets(windows: np.ndarray[Any, Any], batch: int, folder: Path) -> Callable[[], int]:
    """Hugging Face datasets: a memory-mapped Arrow data set of one row a window, `shuffle`, numpy format, `iter`."""
    import datasets

    columns = datasets.Features({"tokens": datasets.Sequence(datasets.Value("uint16"), length=windows.shape[1])})
    datasets.Dataset.from_dict({"tokens": windows}, features=columns).save_to_disk(str(folder))
    shuffled = datasets.load_from_disk(str(folder)).shuffle(seed=1).with_format("numpy")
    return lambda: sum(len(found["tokens"]) for found in shuffled.iter(batch_size=batch))


def main(name: str, file: str, window: str, batch: str, folder: str, repeats: str) -> None:
    """Time one loader over the windows of a file."""
    tokens = np.fromfile(file, dtype=np.uint16)
    windows = tokens[: len(tokens) // int(window) * int(window)].reshape(-1, int(window))
    epoch = {"mosaic": mosaic, "litdata": litdata, "hf_datasets": hf_datasets}[name](windows, int(batch), Path(folder))
    seconds = []
    for _ in range(int(repeats)):
        began = time.perf_counter()
        count = epoch()
        seconds.append(time.perf_counter() - began)
        if count != len(windows):
            raise RuntimeError(f"{name} handed out {count} of {len(windows)} windows")
    print(json.dumps({"seconds": seconds, "tokens": windows.size}))


if __name__ == "__main__":
    main(*sys.argv[1:])
