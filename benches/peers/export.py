#!/usr/bin/env python3
"""What the benchmark runs on, made from a SigLIP checkpoint.

    python benches/peers/export.py --model DIR --out DIR     # ONNX for the peers
    python benches/peers/export.py --sizes DIR               # checkpoints whose image towers have other sizes

OUT gets, in the layout that Transformers.js reads, the configuration and tokenizer files and onnx/{vision,text}_model.onnx, each tower with
its head, in f32, and the same with 8-bit weights in *_quantized.onnx and 4-bit ones in *_q4.onnx, made as Transformers.js's own scripts do it.
"""

import argparse
import shutil
import sys
import warnings
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

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
    # Signed convolutions are not supported.
    weights = QuantType.QUInt8 if "Conv" in kinds else QuantType.QInt8
    quantize_dynamic(path, path.with_name(f"{path.stem}_quantized.onnx"), weight_type=weights,
                     extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True})
    quantizer = MatMulNBitsQuantizer(onnx.load(str(path)), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path.with_name(f"{path.stem}_q4.onnx")), use_external_data_format=False)


# Image towers: the name of the folder, their sizes, side and patch.
SIZES = {
    "B/16-224": (reference.BASE, 224, 16),
    "B/16-384": (reference.BASE, 384, 16),
    "B/16-512": (reference.BASE, 512, 16),
    "So400m/14-384": (reference.SO400M, 384, 14),
}


def write_sizes(out):
    """Checkpoints in f16 with random weights, of which only the image tower counts."""
    for name, (sizes, side, patch) in SIZES.items():
        text = dict(reference.HALF, vocab_size=256, max_position_embeddings=16, projection_size=sizes["hidden_size"])
        model = reference.random_model(dict(text=text, vision=dict(sizes, image_size=side, patch_size=patch)))
        folder = out / name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        reference.save_checkpoint(model, folder, torch.float16)
        reference.save_tokenizer(folder, 16)
        print(f"{folder}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sizes", type=Path)
    a = parser.parse_args()
    reference.quiet()
    if a.sizes:
        return write_sizes(a.sizes)
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
