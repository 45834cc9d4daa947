#!/usr/bin/env python3
"""What rounding each part of a model costs: transformers with weights and activations rounded as the crate does it, beside f32.

    python tests/reference/rounding.py --model DIR [--images FILE...]

For each choice of parts it prints the root mean square of what an embedding's component moves by, over eight crops of the images and eight
rows of random tokens, and by how much their logits move. Weights in 8 bits are those of src/kernels/packed, activations in 8 bits those of
src/kernels/cpu/bytes; queries, keys and patches are left as they are unless a line names them. Packages: requirements.txt beside this file.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import nn

import model as reference
import parity


def bf16_below(v):
    cut = (v.contiguous().view(torch.int32) & -65536).view(torch.float32)
    below = ((v.contiguous().view(torch.int32) & -65536) + 65536).view(torch.float32)
    return torch.where(cut > v, below, cut)


def blocks(x, size):
    """Rows as blocks; the last number fills the last one up."""
    missing = -x.shape[1] % size
    return torch.cat([x, x[:, -1:].expand(-1, missing)], 1).view(len(x), -1, size)


def weights_in_8_bits(weight):
    b = blocks(weight, 32)
    low, high = b.amin(-1, keepdim=True), b.amax(-1, keepdim=True)
    offset = bf16_below(low)
    scale = -bf16_below(offset / 255 - high / 255)
    rounded = ((b - offset) / scale.clamp_min(1e-30) + 0.5).floor().clamp(0, 255) * scale + offset
    return rounded.view(len(weight), -1)[:, : weight.shape[1]]


def activations_in_8_bits(x):
    rows = x.reshape(-1, x.shape[-1])
    b = blocks(rows, 128)
    low, high = b.amin(-1, keepdim=True), b.amax(-1, keepdim=True)
    middle = (low + high) / 2
    largest = ((high - low) / 2).clamp_min(1e-30)
    rounded = torch.round((b - middle) / largest * 127) * largest / 127 + middle
    return rounded.view(len(rows), -1)[:, : x.shape[-1]].reshape(x.shape)


class Rounded(nn.Module):
    """A linear layer; `how` is (whether its weight is rounded, what rounds its input)."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias, self.how = weight, bias, (False, None)
        self.in_8_bits = weights_in_8_bits(weight)

    def forward(self, x):
        rounds_weight, rounds_input = self.how
        return nn.functional.linear(rounds_input(x) if rounds_input else x, self.in_8_bits if rounds_weight else self.weight, self.bias)


class Patches(nn.Module):
    def __init__(self, convolution):
        super().__init__()
        self.size, self.weight = convolution.kernel_size[0], convolution.weight
        self.linear = Rounded(convolution.weight.flatten(1), convolution.bias)

    def forward(self, pixels):
        patches = nn.functional.unfold(pixels, self.size, stride=self.size).transpose(1, 2)
        return self.linear(patches).transpose(1, 2).unflatten(2, [side // self.size for side in pixels.shape[2:]])


class Pooling(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.heads = attention.num_heads
        self.input = Rounded(attention.in_proj_weight, attention.in_proj_bias)
        self.output = Rounded(attention.out_proj.weight, attention.out_proj.bias)

    def forward(self, *inputs):
        parts = [self.input(x).chunk(3, -1)[i].unflatten(-1, (self.heads, -1)).transpose(1, 2) for i, x in enumerate(inputs)]
        return (self.output(nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)), None)


def replace_layers(model):
    """The layers by their names, each in the place of the model's own."""
    layers = {}
    for name, parent in list(model.named_modules()):
        for field, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(parent, nn.MultiheadAttention):
                layers[f"{name}.{field}"] = Rounded(child.weight, child.bias)
                setattr(parent, field, layers[f"{name}.{field}"])
    vision = model.vision_model
    patches, pooling = Patches(vision.embeddings.patch_embedding), Pooling(vision.head.attention)
    vision.embeddings.patch_embedding, vision.head.attention = patches, pooling
    return {**layers, "patches": patches.linear, "head.in_proj": pooling.input, "head.out_proj": pooling.output}


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="*", help="default: three drawn PNGs")
    a = parser.parse_args()
    reference.quiet()
    model = reference.load(a.model)
    text = model.config.text_config
    with tempfile.TemporaryDirectory() as scratch:
        images = a.images or reference.draw_pictures(Path(scratch) / "images")
        pixels = reference.pixel_values(parity.crops(images, 8, Path(scratch)), model.config.vision_config.image_size)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, text.vocab_size - 1, (8, text.max_position_embeddings), generator=generator)
    layers = replace_layers(model)

    def embed():
        towers = model.vision_model(pixel_values=pixels), model.text_model(input_ids=ids)
        return [nn.functional.normalize(tower.pooler_output, dim=-1) for tower in towers]

    exact = embed()
    is_score = lambda name: name.endswith(("q_proj", "k_proj"))
    whole, bytes_ = (True, None), (True, activations_in_8_bits)
    exactly = (False, None)
    print("| in 8 bits | image, rms | text, rms | logits, rms | largest |\n|---|---|---|---|---|")
    for what, score, patches, rest in [
        ("weights", exactly, exactly, whole),
        ("and activations", exactly, exactly, bytes_),
        ("weights; queries' and keys' weights too", whole, exactly, whole),
        ("weights; patches' weights too", exactly, whole, whole),
        ("all weights", whole, whole, whole),
        ("weights and activations; queries' and keys' weights too", whole, exactly, bytes_),
        ("weights and activations; those of queries and keys too", bytes_, exactly, bytes_),
        ("weights and activations; those of patches too", exactly, bytes_, bytes_),
        ("all weights and activations", bytes_, bytes_, bytes_),
    ]:
        for name, layer in layers.items():
            layer.how = score if is_score(name) else patches if name == "patches" else rest
        got = embed()
        rms = [(g - e).pow(2).mean().sqrt().item() for g, e in zip(got, exact)]
        logits = (got[0] @ got[1].T - exact[0] @ exact[1].T) * model.logit_scale.exp()
        print(f"| {what} | {rms[0]:.1e} | {rms[1]:.1e} | {logits.pow(2).mean().sqrt():.2f} | {logits.abs().max():.2f} |", flush=True)


if __name__ == "__main__":
    main()
