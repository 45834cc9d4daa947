#!/usr/bin/env python3
"""Writes tests/fixtures/model/*/explain.json: what each place of the fixture's picture adds to a label's logit, by transformers' own pooling head.

    python tests/reference/explain.py

For each patch: the logit less that with the patch and its neighbours masked (`key_padding_mask` of torch's attention). See src/classifier/explain.rs.
"""
import json

import torch

from model import FIXTURES, classify, label_ids, load, pixel_values, write_json  # noqa: F401


def explain(model, pixels, text, side):
    vision = model.vision_model
    head = vision.head
    tokens = vision(pixel_values=pixels).last_hidden_state  # after post_layernorm

    def logit(mask):
        if mask.all():  # nothing is found
            found = head.attention.out_proj.bias[None, None]
        else:
            found = head.attention(head.probe, tokens, tokens, key_padding_mask=mask[None])[0]
        pooled = (found + head.mlp(head.layernorm(found)))[0, 0]
        cosine = torch.nn.functional.normalize(pooled, dim=0) @ text
        return (model.logit_scale.exp() * cosine + model.logit_bias).item()

    whole = logit(torch.zeros(side * side, dtype=torch.bool))
    values = []
    for row in range(side):
        for column in range(side):
            mask = torch.zeros(side, side, dtype=torch.bool)
            mask[max(0, row - 1):row + 2, max(0, column - 1):column + 2] = True
            values.append(whole - logit(mask.flatten()))
    return values


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
