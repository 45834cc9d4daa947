#!/usr/bin/env python3
"""Where in a picture a label's score comes from: forms of heat map, judged by the pointing game.

    apt-get install ruby-gemojione
    python pointing.py --model ../../www/lib/models/demo [--pictures 400]

Each picture is composed of an EmojiOne drawing, which the demo model has never seen, a second one of another concept and a background. The map of the
first one's label should have its highest place inside that drawing, whose box is a tenth of the picture.

attention   the pooling head's own, averaged over its heads: the same for every label
gradient    LeGrad (Bousselham et al. 2024) for the head, last two layers. With f = o + MLP(LN(o)) and o = W_o concat_h(sum_j A_hj V_hj) + b,
            d cos / d A_hj = u_h . V_hj where u = W_o^T (I + J)^T (t - f^(f^ . t)) / |f|; checked against torch's autograd
windows     the head sees only 3 x 3 patches at a time: the logit that these give
left out    the head doesn't see 3 x 3 patches: what the logit loses without them (src/classifier/explain.rs)
"""
import argparse
import io
import random

import numpy as np
import resvg_py
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from lexicon import Lexicon
from render import emojione

SIDE = 256
REACH = 1
TEMPLATE = "This is a photo of a {}."


def drawing(svg, side):
    """RGBA, cropped to what is drawn, its longer side so many pixels."""
    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=svg, width=256)))).convert("RGBA")
    image = image.crop(image.getbbox())
    scale = side / max(image.size)
    return image.resize([max(1, round(n * scale)) for n in image.size], Image.LANCZOS)


def scene(drawings, rng):
    """A picture, the box (left, top, right, bottom) of its first drawing, and that one's concept."""
    light = np.array([rng.randint(170, 255) for _ in range(3)])
    ramp = np.linspace(0, rng.uniform(-50, 50), SIDE)[:, None, None] * np.ones((1, SIDE, 1))
    picture = Image.fromarray(np.clip(light + ramp, 0, 255).astype(np.uint8))
    first = rng.choice(drawings)
    second = rng.choice([d for d in drawings if not d["near"] & first["near"]])
    boxes = []
    for one in (first, second):
        image = drawing(one["svg"], round(SIDE * 0.1 ** 0.5 * 1.1))
        while True:
            x, y = rng.randint(0, SIDE - image.width), rng.randint(0, SIDE - image.height)
            box = (x, y, x + image.width, y + image.height)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
                break
        picture.paste(image, (x, y), image)
        boxes.append(box)
    return picture, boxes[0], first["name"]


def attention(head, x):
    """Weights [heads, patches] and values [heads, patches, channels] for x [patches, hidden]."""
    query, key, value = (
        rows @ w.T + b
        for rows, w, b in zip((head.probe[0], x, x), head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3))
    )
    query, key, value = (rows.view(len(rows), head.attention.num_heads, -1).transpose(0, 1) for rows in (query, key, value))
    return torch.softmax(query @ key.transpose(1, 2) / query.shape[-1] ** 0.5, -1)[:, 0], value


def found(head, weights, value):
    """o, [1, hidden]."""
    return head.attention.out_proj((weights[:, None] @ value)[:, 0].reshape(1, -1))


def cosine(head, weights, value, text):
    o = found(head, weights, value)
    return torch.cosine_similarity((o + head.mlp(head.layernorm(o)))[0], text, dim=0)


def gradients(head, weights, value, text):
    """d cos / d A, [heads, patches], in closed form."""
    o = found(head, weights, value)[0]
    norm, mlp = head.layernorm, head.mlp
    deviation = (o.var(unbiased=False) + norm.eps).sqrt()
    y = (o - o.mean()) / deviation
    z = mlp.fc1(norm.weight * y + norm.bias)
    f = o + mlp.fc2(mlp.activation_fn(z))
    unit = f / f.norm()
    g = (text - unit * (unit @ text)) / f.norm()
    c = (2 / np.pi) ** 0.5
    t = torch.tanh(c * (z + 0.044715 * z ** 3))
    slope = 0.5 * (1 + t) + 0.5 * z * (1 - t ** 2) * c * (1 + 3 * 0.044715 * z ** 2)
    back = ((g @ mlp.fc2.weight) * slope) @ mlp.fc1.weight * norm.weight
    back = (back - back.mean() - y * (back * y).mean()) / deviation
    u = ((g + back) @ head.attention.out_proj.weight).view(len(value), -1)
    return torch.einsum("hc,hjc->hj", u, value)


def by_autograd(head, weights, value, text):
    weights = weights.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(cosine(head, weights, value, text), weights)[0]


def masked(head, weights, value, text, side, keep):
    """The cosine for each place with its window kept alone, or left out: [patches]."""
    out = []
    for row in range(side):
        for column in range(side):
            window = torch.zeros(side, side)
            window[max(0, row - REACH):row + REACH + 1, max(0, column - REACH):column + REACH + 1] = 1
            left = weights * (window if keep else 1 - window).flatten()
            out.append(cosine(head, left / left.sum(1, keepdim=True), value, text))
    return torch.stack(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", type=int, default=400)
    a = parser.parse_args()
    torch.set_grad_enabled(False)
    model = AutoModel.from_pretrained(a.model, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(a.model)
    vision = model.vision_model
    head = vision.head
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    lexicon = Lexicon()
    drawings = []
    for one in emojione():
        names = [name for name in one["concepts"] if not lexicon.is_group[name]]
        if len(names) == 1:
            near = {names[0]} | {other for name, other in lexicon.confusable if name == names[0]}
            drawings.append({"svg": one["svg"], "name": names[0], "near": near})
    rng = random.Random(1)
    inside, share, seen, chance, worst = {}, {}, [], [], 0.0
    for _ in range(a.pictures):
        picture, box, name = scene(drawings, rng)
        inputs = processor(images=picture, text=[TEMPLATE.format(name)], padding="max_length", truncation=True, return_tensors="pt")
        text = torch.nn.functional.normalize(model.get_text_features(input_ids=inputs["input_ids"]).pooler_output[0], dim=0)
        states = vision(pixel_values=inputs["pixel_values"], output_hidden_states=True).hidden_states
        layers = [attention(head, vision.post_layernorm(states[i])[0]) for i in (-1, -2)]
        derivatives = [gradients(head, *layer, text) for layer in layers]
        worst = max(worst, *((d - by_autograd(head, *layer, text)).abs().max().item() for d, layer in zip(derivatives, layers)))
        maps = {
            "attention": layers[0][0].mean(0),
            "gradient": sum(d.relu().mean(0) for d in derivatives),
            "windows": masked(head, *layers[0], text, side, True),
            "left out": cosine(head, *layers[0], text) - masked(head, *layers[0], text, side, False),
        }
        left, top, right, bottom = (n * side / SIDE for n in box)
        places = torch.tensor([top <= r + 0.5 <= bottom and left <= c + 0.5 <= right for r in range(side) for c in range(side)])
        chance.append(places.float().mean().item())
        seen.append((model.logit_scale.exp() * cosine(head, *layers[0], text) + model.logit_bias).item() > -2)
        for form, values in maps.items():
            inside.setdefault(form, []).append(places[values.argmax()].item())
            positive = values.relu()
            share.setdefault(form, []).append((positive[places].sum() / positive.sum().clamp(min=1e-9)).item())
    seen = np.array(seen)
    print(f"{a.pictures} pictures; the drawing takes {100 * np.mean(chance):.1f} % of the places, which is chance; in {seen.sum()} the model gives its label 12 % or more")
    print(f"closed form and autograd differ by at most {worst:.1e}")
    print("| form | highest place inside, % | of those with 12 % or more | of the map inside, % |\n|---|---|---|---|")
    for form, hits in inside.items():
        hits = np.array(hits)
        print(f"| {form} | {100 * hits.mean():.1f} | {100 * hits[seen].mean():.1f} | {100 * np.mean(share[form]):.1f} |")


if __name__ == "__main__":
    main()
