#!/usr/bin/env python3
"""A SigLIP checkpoint's towers as LiteRT has models, for the benchmark.

    python benches/peers/export_litert.py --model DIR --out DIR

OUT gets {vision,text}_model.tflite, each tower with its head for one picture or text, in f32, and the same with 8-bit weights and activations that are
quantized as they come (ai-edge-quantizer's dynamic recipe) in *_quantized.tflite. Packages: requirements-litert.txt; they ask for another
torch than the rest of the benchmark.
"""

import argparse
from pathlib import Path

import litert_torch
import torch
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.recipe import AlgorithmName, qtyping
from transformers import SiglipModel, logging


class Tower(torch.nn.Module):
    """One input, one output."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, value):
        return self.tower(value).pooler_output


def export(tower, example, path):
    module = Tower(tower).eval()
    with torch.inference_mode():
        converted = litert_torch.convert(module, (example,))
        error = (module(example) - torch.from_numpy(converted(example))).abs().max().item()
    converted.export(str(path))
    quantized = path.with_name(f"{path.stem}_quantized.tflite")
    quantized.unlink(missing_ok=True)
    work = quantizer.Quantizer(str(path))
    work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    # The pooling head's constant query: LiteRT has no kernel for a quantized factor on that side.
    work.update_quantization_recipe(".*", qtyping.TFLOperationName.BATCH_MATMUL, algorithm_key=AlgorithmName.NO_QUANTIZE)
    work.quantize().export_model(str(quantized))
    sizes = [f"{file.name} {file.stat().st_size / 1e6:.0f} MB" for file in (path, quantized)]
    print(f"{', '.join(sizes)}; largest difference from PyTorch in f32: {error:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    logging.set_verbosity_error()
    a.out.mkdir(parents=True, exist_ok=True)
    model = SiglipModel.from_pretrained(a.model, dtype=torch.float32, attn_implementation="eager").eval()
    side, context = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings
    generator = torch.Generator().manual_seed(1)
    export(model.vision_model, 2 * torch.rand((1, 3, side, side), generator=generator) - 1, a.out / "vision_model.tflite")
    export(model.text_model, torch.randint(3, 100, (1, context), generator=generator, dtype=torch.int32), a.out / "text_model.tflite")


if __name__ == "__main__":
    main()
