#!/usr/bin/env python3
"""Exports a SigLIP checkpoint to ONNX in the layout that Transformers.js reads.

    python benches/peers/export.py --model DIR --out DIR

OUT gets the configuration and tokenizer files and onnx/{vision,text}_model.onnx, each tower with its head, f32.
"""

import argparse
import shutil
import sys
import warnings
from pathlib import Path

import onnx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "reference"))
import model as reference  # noqa: E402


class Tower(torch.nn.Module):
    """One tower as the exported graph has it: one input, two outputs."""

    def __init__(self, tower, argument):
        super().__init__()
        self.tower, self.argument = tower, argument

    def forward(self, value):
        out = self.tower(**{self.argument: value})
        return out.last_hidden_state, out.pooler_output


def export(tower, argument, example, path):
    module = Tower(tower, argument).eval()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, (example,), dynamo=True, opset_version=20, verbose=False, input_names=[argument],
            output_names=["last_hidden_state", "pooler_output"], dynamic_shapes=({0: torch.export.Dim("batch", max=64)},))
    program.optimize()
    program.save(str(path), external_data=False)
    graph = onnx.load(str(path), load_external_data=False).graph
    kinds = sorted({node.op_type for node in graph.node})
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB, {len(graph.node)} nodes: {' '.join(kinds)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    reference.quiet()
    (a.out / "onnx").mkdir(parents=True, exist_ok=True)
    for file in a.model.glob("*.json"):
        shutil.copyfile(file, a.out / file.name)
    model = reference.load(a.model)
    side = model.config.vision_config.image_size
    context = model.config.text_config.max_position_embeddings
    export(model.vision_model, "pixel_values", reference.random_pixels(2, side, 1), a.out / "onnx" / "vision_model.onnx")
    export(model.text_model, "input_ids", reference.random_ids(2, 100, context, 1), a.out / "onnx" / "text_model.onnx")


if __name__ == "__main__":
    main()
