"""The terminal's side of progress: what is happening, how far it is, and how long it will still take."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from flows.progress import Event, listen

# Seconds of each stage of a first demo on two cores, in order: only their proportions matter, since what has passed
# corrects what is to come.
STAGES = {
    "server": 15.0,
    "ingest": 60.0,
    "curate": 4.0,
    "tokenizer": 4.0,
    "shard": 12.0,
    "train": 125.0,
    "evaluate": 30.0,
    "export": 3.0,
    "verify": 10.0,
    "report": 6.0,
}


class Display:
    """Shows the stages of the main job on stderr; on a pipe, one plain line a change of stage."""

    def __init__(self, train_weight: float = 1.0, sets: int = 1) -> None:
        self.console = Console(stderr=True)
        self._stages = {**STAGES, "train": STAGES["train"] * train_weight}
        self._done: dict[str, float] = dict.fromkeys(self._stages, 0.0)
        self._sets = sets
        self._whole = 0.0
        self._began = time.monotonic()
        self._said = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("[cyan]{task.fields[left]}"),
            TextColumn("[dim]{task.fields[detail]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._progress.add_task("start", total=1.0, left="", detail="")

    def __enter__(self) -> Display:
        if sys.stderr.isatty():
            self._progress.start()
        listen(self._on)
        self._on(Event("server", 0, 1, "an embedded Prefect server starts"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        listen(None)
        self._progress.stop()

    def remaining_s(self) -> float | None:
        """Return the seconds that are left: the plan's for what is to come, scaled by how what is done compared."""
        total = sum(self._stages.values())
        done = sum(self._stages[s] * f for s, f in self._done.items())
        elapsed = time.monotonic() - self._began
        if done < 0.02 * total:
            return None
        # Early on the plan's own figures weigh more than a ratio of few seconds.
        scale = (elapsed + 20.0) / (done + 20.0)
        return max(0.0, (total - done) * scale)

    def _on(self, event: Event) -> None:
        stage = event.stage.split(" ")[0]
        if stage not in self._stages:
            return
        for earlier in self._stages:
            if earlier == stage:
                break
            self._done[earlier] = 1.0
        share = min(1.0, event.done / max(event.total, 1e-9))
        if " " in event.stage:
            # One data set of several: `ingest 1 of 3` will say when it is whole.
            self._done[stage] = max(self._done[stage], self._whole + share / max(self._sets, 1))
        elif event.done >= 0:
            self._done[stage] = self._whole = share
        left = self.remaining_s()
        text = "" if left is None else f"about {_words(left)} left"
        total = sum(self._stages.values())
        done = sum(self._stages[s] * f for s, f in self._done.items()) / total
        counts = f"{event.done:.0f} of {event.total:.0f} " if event.total > 1 and event.done >= 0 else ""
        detail = f"{counts}{event.detail}"
        self._progress.update(self._task, description=event.stage, completed=done, left=text, detail=detail)
        if not sys.stderr.isatty() and self._changed(event):
            elapsed = time.monotonic() - self._began
            self.console.print(
                f"[{elapsed:6.1f} s] {event.stage}: {detail} {text}".rstrip(), highlight=False, markup=False
            )

    def _changed(self, event: Event) -> bool:
        """On a pipe, say something when the stage changes or a round is done, not for every step."""
        step = event.done if event.stage == "train" else 4 * event.done / max(event.total, 1e-9)
        mark = f"{event.stage}:{int(step)}"
        changed = mark != self._said
        self._said = mark
        return changed


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
