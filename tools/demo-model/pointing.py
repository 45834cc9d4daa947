#!/usr/bin/env python3
"""Where in a picture a label's score comes from: forms of heat map, judged by the pointing game.

    apt-get install ruby-gemojione
    python pointing.py --model ../../www/lib/models/demo [--pictures 1000] [--seed 2] [--deeper]

Each picture is composed of an EmojiOne drawing, which the demo model has never seen, a second one of another concept and a background. The map of the
first one's label should have its highest place inside that drawing, whose box is a tenth of the picture. The width of the shipped
form was chosen on seeds 11 and 12.

attention   the pooling head's own, averaged over its heads: the same for every label
gradient    LeGrad (Bousselham et al. 2024) for the head, last two layers. With f = o + MLP(LN(o)) and o = W_o concat_h(sum_j A_hj V_hj) + b,
            d cos / d A_hj = u_h . V_hj where u = W_o^T (I + J)^T (t - f^(f^ . t)) / |f|; checked against torch's autograd
slope       the same of the last layer by the attention's logits, A_hj u_h . (V_hj - sum_i A_hi V_hi)
alone       the head sees only 3 x 3 patches at a time: the logit that these give
out, N x N  the head doesn't see N x N patches: what the logit loses without them
out, plus   the same with a patch and its four neighbours
out, soft   the head looks away from a patch: a Gaussian window (src/classifier/explain.rs, in whose tests' reference the window is defined)
contrast    "out, soft" less what the mean of all names' texts loses
random      the head sees random halves of the patches, 512 times: what each adds, by ridge regression
last N      (--deeper) as "out, soft", with the patches masked in the attention of the encoder's last N layers, too, which then run again for each place:
            far too dear to ship

With --deeper a last table says how often the label loses more without the first drawing's whole box than without the second's.
"""
import argparse
import io
import random
import sys
from pathlib import Path

import numpy as np
import resvg_py
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from lexicon import Lexicon
from render import emojione

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "reference"))
from explain import kept  # noqa: E402

SIDE = 256
TEMPLATE = "This is a photo of a {}."


def drawing(svg, side):
    """RGBA, cropped to what is drawn, its longer side so many pixels."""
    image = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_path=svg, width=256)))).convert("RGBA")
    image = image.crop(image.getbbox())
    scale = side / max(image.size)
    return image.resize([max(1, round(n * scale)) for n in image.size], Image.LANCZOS)


def scene(drawings, rng):
    """A picture, the boxes (left, top, right, bottom) of its drawings, and the first one's concept."""
    light = np.array([rng.randint(170, 255) for _ in range(3)])
    ramp = np.linspace(0, rng.uniform(-50, 50), SIDE)[:, None, None] * np.ones((1, SIDE, 1))
    picture = Image.fromarray(np.clip(light + ramp, 0, 255).astype(np.uint8))
    first = rng.choice(drawings)
    second = rng.choice([d for d in drawings if not d["near"] & first["near"]])
    images = [drawing(one["svg"], round(SIDE * 0.1 ** 0.5 * 1.1)) for one in (first, second)]
    boxes = []
    while len(boxes) < len(images):
        image = images[len(boxes)]
        for _ in range(1000):
            x, y = rng.randint(0, SIDE - image.width), rng.randint(0, SIDE - image.height)
            box = (x, y, x + image.width, y + image.height)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
                boxes.append(box)
                break
        else:
            # One in the middle leaves the other no room.
            boxes.clear()
    for image, box in zip(images, boxes):
        picture.paste(image, box[:2], image)
    return picture, boxes, first["name"]


def attention(head, x):
    """Logits [..., heads, patches] and values [..., heads, patches, channels] for x [..., patches, hidden]."""
    query, key, value = (
        (rows @ w.T + b).unflatten(-1, (head.attention.num_heads, -1)).transpose(-3, -2)
        for rows, w, b in zip((head.probe[0], x, x), head.attention.in_proj_weight.chunk(3), head.attention.in_proj_bias.chunk(3))
    )
    return (query @ key.transpose(-1, -2))[..., 0, :] / query.shape[-1] ** 0.5, value


def found(head, weights, value):
    """o, [..., hidden]."""
    return head.attention.out_proj((weights[..., None, :] @ value)[..., 0, :].flatten(-2))


def pooled(head, weights, value):
    """[..., hidden], of length 1."""
    o = found(head, weights, value)
    return torch.nn.functional.normalize(o + head.mlp(head.layernorm(o)), dim=-1)


def cosine(head, weights, value, text):
    return pooled(head, weights, value) @ text


def gradients(head, weights, value, text):
    """d cos / d A, [heads, patches], in closed form."""
    o = found(head, weights, value)
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


def slope(weights, value, derivatives):
    """d cos / d the attention's logits from d cos / d A, [heads, patches]."""
    return weights * (derivatives - (weights * derivatives).sum(1, keepdim=True))


def apart(side):
    """Rows and columns between places, [places, patches] each."""
    y, x = torch.arange(side ** 2) // side, torch.arange(side ** 2) % side
    return [(axis[:, None] - axis[None]).abs() for axis in (y, x)]


def window(side, reach):
    """For each place the patches around it, [places, patches]."""
    rows, columns = apart(side)
    return ((rows <= reach) & (columns <= reach)).float()


def masked(head, layer, seen):
    """The picture's vector for each row of seen [n, patches], the share of each patch that the head sees: [n, hidden]."""
    logits, value = layer
    return pooled(head, (logits + seen.log()[:, None]).softmax(-1), value)


def deeper(vision, states, seen, layers):
    """The same with the last layers of the encoder masked, too."""
    x = states[-1 - layers].expand(len(seen), -1, -1)
    mask = seen.log()[:, None, None].expand(-1, 1, seen.shape[1], -1)
    for layer in vision.encoder.layers[len(vision.encoder.layers) - layers:]:
        x = layer(x, mask)
        x = x[0] if isinstance(x, tuple) else x
    logits, value = attention(vision.head, vision.post_layernorm(x))
    return pooled(vision.head, (logits + seen.log()[:, None]).softmax(-1), value)


def ridge(seen, losses):
    """What each patch adds, from what n rows of seen patches give."""
    x = torch.cat([seen, torch.ones(len(seen), 1)], 1)
    few = 5.0 * torch.eye(x.shape[1])
    few[-1, -1] = 0
    return torch.linalg.solve(x.T @ x + few, x.T @ losses)[:-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--deeper", action="store_true")
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
    names = sorted({one["name"] for one in drawings})
    tokens = processor.tokenizer([TEMPLATE.format(name) for name in names], padding="max_length", truncation=True, return_tensors="pt")
    texts = torch.nn.functional.normalize(model.get_text_features(input_ids=tokens["input_ids"]).pooler_output, dim=-1)
    depth = len(vision.encoder.layers)
    soft = kept(side, side)
    plus = (sum(apart(side)) <= 1).float()
    halves = (torch.rand(512, side ** 2, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    rng = random.Random(a.seed)
    inside, share, first, seen, chance, worst = {}, {}, {}, [], [], 0.0
    for _ in range(a.pictures):
        picture, boxes, name = scene(drawings, rng)
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        text = texts[names.index(name)]
        states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
        layers = [attention(head, vision.post_layernorm(states[i])[0]) for i in (-1, -2)]
        weights, value = layers[0][0].softmax(-1), layers[0][1]
        derivatives = [gradients(head, logits.softmax(-1), value, text) for logits, value in layers]
        checks = [by_autograd(head, logits.softmax(-1), value, text) for logits, value in layers]
        worst = max(worst, *((d - check).abs().max().item() for d, check in zip(derivatives, checks)))
        whole = pooled(head, weights, value)
        lost = {f"out, {2 * reach + 1} x {2 * reach + 1}": whole - masked(head, layers[0], 1 - window(side, reach)) for reach in range(3)}
        lost["out, plus"] = whole - masked(head, layers[0], 1 - plus)
        lost["out, soft"] = whole - masked(head, layers[0], soft)
        lost |= {f"last {n}": whole - deeper(vision, states, soft, n) for n in (1, 3) if a.deeper}
        maps = {
            "attention": weights.mean(0),
            "gradient": sum(d.relu().mean(0) for d in derivatives),
            "slope": slope(weights, value, derivatives[0]).sum(0),
            "alone": masked(head, layers[0], window(side, 1)) @ text,
            "contrast": lost["out, soft"] @ (text - texts.mean(0)),
            "random": ridge(halves, masked(head, layers[0], halves) @ text),
            **{form: vectors @ text for form, vectors in lost.items()},
        }
        boxes = [[n * side / SIDE for n in box] for box in boxes]
        if a.deeper:
            undrawn = torch.ones(2, side, side)
            for one, (left, top, right, bottom) in zip(undrawn, boxes):
                one[int(top):int(np.ceil(bottom)), int(left):int(np.ceil(right))] = 0
            for n in (0, 1, 3, depth):
                loses = (whole - deeper(vision, states, undrawn.flatten(1), n)) @ text
                first.setdefault(n, []).append((loses[0] > loses[1]).item())
        left, top, right, bottom = boxes[0]
        places = torch.tensor([top <= r + 0.5 <= bottom and left <= c + 0.5 <= right for r in range(side) for c in range(side)])
        chance.append(places.float().mean().item())
        seen.append((model.logit_scale.exp() * whole @ text + model.logit_bias).item() > -2)
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
    if a.deeper:
        print("| masked | the first box loses more, % | of those with 12 % or more |\n|---|---|---|")
    for n, hits in first.items():
        hits = np.array(hits)
        print(f"| head and last {n} layers | {100 * hits.mean():.1f} | {100 * hits[seen].mean():.1f} |")


if __name__ == "__main__":
    main()
