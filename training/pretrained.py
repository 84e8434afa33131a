"""Models that others have trained: checkpoints to go on from, and adapters on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import CausewayError
from training.model import ModelSpec, Parameters, build, config_of, load_parameters, parameters_of


def read_checkpoint(folder: Path, window: int) -> tuple[ModelSpec, dict[str, NDArray[np.float32]]]:
    """Return the spec and the parameters, fp32, of a `transformers` checkpoint in a local folder, to train on from.

    Only safetensors are read, and no code from the folder is run.

    Raises:
        CausewayError: the folder is no such checkpoint, lacks some of the parameters, or is no causal language model.
    """
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    try:
        config = json.loads((folder / "config.json").read_bytes())
        spec = ModelSpec(architecture="transformers", config=config, vocab_size=config["vocab_size"], window=window)
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=config_of(spec),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CausewayError(f"{folder}: not a checkpoint to go on from: {str(error).splitlines()[0]}") from error
    if missing := sorted(report["missing_keys"]):
        raise CausewayError(f"{folder}: lacks {', '.join(missing[:3])} ({len(missing)} in all); it is another model's")
    return spec, parameters_of(model.float())


def merged(spec: ModelSpec, adapter: Parameters, base: Parameters) -> dict[str, NDArray[np.float32]]:
    """Return the parameters of the model without an adapter that computes what `base` with `adapter` does."""
    model = build(spec, 0, base)
    load_parameters(model, adapter)
    merge: Any = model.merge_and_unload  # of peft's wrapper
    return {name: t.detach().float().cpu().numpy().copy() for name, t in sorted(merge().named_parameters())}
