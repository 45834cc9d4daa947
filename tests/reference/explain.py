#!/usr/bin/env python3
"""Writes tests/fixtures/model/*/explain.json: what each place of the fixture's picture adds to a label's logit, by transformers' own pooling head.

    python tests/reference/explain.py

For each patch: the logit less that with the patch masked, and those around it in part (`key_padding_mask` of torch's attention, the logarithm of what is
kept). See src/classifier/explain.rs.
"""
import json

import torch

from model import FIXTURES, classify, label_ids, load, pixel_values, write_json  # noqa: F401

SPREAD = 0.8  # standard deviation, in patches, and patches on each side: as in src/classifier/explain.rs
REACH = 2


def kept(rows, columns):
    """For each place, which share of each patch is seen when the head looks away from the place: [places, patches]."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    y, x = ((axis.flatten()[:, None] - axis.flatten()[None]).abs() for axis in (y, x))
    near = torch.exp(-(y ** 2 + x ** 2) / (2 * SPREAD ** 2))
    return 1 - near * ((y <= REACH) & (x <= REACH))


def explain(model, pixels, text, side):
    vision = model.vision_model
    head = vision.head
    tokens = vision(pixel_values=pixels).last_hidden_state  # after post_layernorm

    def logit(kept):
        if not kept.any():  # nothing is found
            found = head.attention.out_proj.bias[None, None]
        else:
            found = head.attention(head.probe, tokens, tokens, key_padding_mask=kept.log()[None])[0]
        pooled = (found + head.mlp(head.layernorm(found)))[0, 0]
        cosine = torch.nn.functional.normalize(pooled, dim=0) @ text
        return (model.logit_scale.exp() * cosine + model.logit_bias).item()

    whole = logit(torch.ones(side * side))
    return [whole - logit(one) for one in kept(side, side)]


def main():
    torch.set_grad_enabled(False)
    for name in ("tiny", "odd"):
        folder = FIXTURES / "model" / name
        about = json.loads((folder / "classify.json").read_text())
        model = load(folder)
        config = model.config.vision_config
        side = config.image_size // config.patch_size
        whole = classify(model, folder, [folder / about["image"]], about["labels"])
        text = torch.nn.functional.normalize(whole["text_embeds"][1], dim=0)
        pixels = pixel_values([folder / about["image"]], config.image_size)
        values = explain(model, pixels, text, side)
        write_json(folder / "explain.json", {"label": about["labels"][1], "rows": side, "columns": side, "values": values})
        print(f"{name}: {side} x {side} places, {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    main()
