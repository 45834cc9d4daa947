#!/usr/bin/env python3
"""Trains the demo model: a small SigLIP, on drawings from render.py, with the pairwise sigmoid loss.

    python train.py --data DATA --tokenizer TOKENIZER --out RUN --minutes 60 [--resume]

The loss is SigLIP's (Zhai et al. 2023, equation 1): -log sigmoid(z (t x·y + b)) over all picture-caption pairs of a batch,
with t = exp(t') and t' = log 10 at the start. The paper starts b at -10, about the log-odds of a positive pair in its batches of 16 thousand;
here about 1.2 % of a batch's pairs are positive, so b starts at log(0.012 / 0.988) = -4.4 (a short run from -10 stayed
at chance). Two more things differ, since captions here come from a few hundred concepts:
  - a caption that is true of several pictures of the batch counts as positive for each of them (z = 1), not as a negative;
  - a pair of which it is not known whether it matches ("a bird" drawn, "a parrot" asked) is left out of the sum.
Beside each picture's own caption a batch holds captions of random concepts: negatives that need no picture.
Matrices inside the encoders are updated with Muon, everything else with AdamW; warm-up, constant rate, then linear decay to 0.
Half of the patches is dropped while the rate is constant. RUN/model.pt holds all state: --resume goes on from it.
"""
import argparse, json, math, time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

from scenes import Scenes

WIDTH, SIDE, PATCH, VISION_LAYERS, TEXT_LAYERS = 160, 64, 8, 6, 3   # 3.6 M parameters: with its tokenizer under 8 MB in f16


def config(vocab, context):
    common = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=WIDTH // 32, hidden_act="gelu_pytorch_tanh")
    return SiglipConfig(
        text_config=dict(common, num_hidden_layers=TEXT_LAYERS, vocab_size=vocab, max_position_embeddings=context, projection_size=WIDTH,
                         pad_token_id=1, bos_token_id=1, eos_token_id=1),
        vision_config=dict(common, num_hidden_layers=VISION_LAYERS, image_size=SIDE, patch_size=PATCH))


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz steps (Jordan et al. 2024), for the encoders' matrices."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.05):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            shapes = {}
            for p in g["params"]:
                if p.grad is None:                         # a layer not yet in use
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(g["momentum"]).add_(p.grad)
                shapes.setdefault(tuple(p.shape), []).append((p, p.grad + g["momentum"] * m))
            for shape, items in shapes.items():
                x = torch.stack([u for _, u in items]).bfloat16()
                tall = shape[0] > shape[1]
                x = x.mT.contiguous() if tall else x
                x = x / (x.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
                for _ in range(5):
                    a = x @ x.mT
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                x = (x.mT if tall else x).float()
                for (p, _), u in zip(items, x):
                    p.mul_(1 - g["lr"] * g["weight_decay"]).add_(u, alpha=-g["lr"] * max(1, shape[0] / shape[1]) ** 0.5)


class Batches(torch.utils.data.IterableDataset):
    def __init__(self, a, first):
        self.a, self.first = a, first

    def __iter__(self):
        torch.set_num_threads(1)
        info = torch.utils.data.get_worker_info()
        tok = SiglipTokenizer.from_pretrained(self.a.tokenizer)
        encode = lambda texts: torch.tensor(tok(texts, padding="max_length", truncation=True)["input_ids"])
        scenes = Scenes(self.a.data, encode, SIDE, self.a.seed, easy=self.a.easy)
        step = self.first + info.id
        while True:
            yield step, scenes.batch(self.a.batch, self.a.extra, step)
            step += info.num_workers


def image_embeddings(model, pixels, drop, layers):
    v = model.vision_model
    x = v.embeddings(pixels)
    if drop:
        keep = round(x.shape[1] * (1 - drop))
        order = torch.rand(x.shape[:2]).argsort(1)[:, :keep]
        x = x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    for layer in v.encoder.layers[:layers]:
        x = layer(x, None)
    return F.normalize(v.head(v.post_layernorm(x)).float(), dim=-1)


def text_embeddings(model, ids, layers):
    unique, where = torch.unique(ids, dim=0, return_inverse=True)
    t = model.text_model
    x = t.embeddings(unique)
    for layer in t.encoder.layers[:layers]:
        x = layer(x, None)
    return F.normalize(t.head(t.final_layer_norm(x)[:, -1]).float(), dim=-1)[where]


def sigmoid_loss(image, text, target, scale, bias):
    logits = image @ text.T * scale.exp() + bias
    pair = -F.logsigmoid(target * logits) * (target != 0)
    return pair.sum() / len(image)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--tokenizer", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--minutes", type=float, default=60, help="wall-clock length of the whole run; the rate decays over its last part")
    ap.add_argument("--until", type=float, help="... or the end as seconds since 1970")
    ap.add_argument("--decay", type=float, default=0.3, help="share of the run in which the rate falls to 0")
    ap.add_argument("--batch", type=int, default=64)
    ap.add_argument("--extra", type=int, default=32, help="captions of random concepts per batch")
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--muon-lr", type=float, default=0.02)
    ap.add_argument("--drop", type=float, default=0.5)
    ap.add_argument("--bias", type=float, default=-4.4, help="logit bias at the start: log-odds of a pair's being positive, see above")
    ap.add_argument("--grow", type=int, default=0, help="train 2 image layers and 1 text layer alone for so many steps: cheaper, and sooner off the ground")
    ap.add_argument("--easy", type=float, default=0.3, help="share of batches with whole drawings on plain backgrounds")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--resume", action="store_true")
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    a.out.mkdir(parents=True, exist_ok=True)
    tok = SiglipTokenizer.from_pretrained(a.tokenizer)
    model = SiglipModel._from_config(config(tok.vocab_size, tok.model_max_length), attn_implementation="eager")  # the fused one's gradient is slow on CPUs
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(a.bias)
        if a.grow:                                         # these start as identities and are passed over until then
            for layer in [*model.vision_model.encoder.layers[2:], *model.text_model.encoder.layers[1:]]:
                for p in (layer.self_attn.out_proj, layer.mlp.fc2):
                    p.weight.zero_()
                    p.bias.zero_()
    named = dict(model.named_parameters())
    hidden = [p for n, p in named.items() if ".encoder.layers." in n and p.ndim == 2]
    ids = {id(p) for p in hidden} | {id(model.logit_scale), id(model.logit_bias)}
    rest = [p for p in named.values() if id(p) not in ids]
    muon = Muon(hidden, a.muon_lr)
    adam = torch.optim.AdamW([dict(params=[p for p in rest if p.ndim > 1], weight_decay=0.02), dict(params=[p for p in rest if p.ndim <= 1], weight_decay=0),
                              dict(params=[model.logit_scale, model.logit_bias], weight_decay=0, lr=a.lr * 3)], lr=a.lr, betas=(0.9, 0.98), eps=1e-8)
    for o in (muon, adam):
        for g in o.param_groups:
            g["base"] = g["lr"]
    average = {n: p.detach().clone() for n, p in named.items()}
    step, spent = 0, 0.0
    if a.resume and (a.out / "model.pt").exists():
        s = torch.load(a.out / "model.pt", weights_only=True)
        model.load_state_dict(s["model"])
        muon.load_state_dict(s["muon"])
        adam.load_state_dict(s["adam"])
        average, step, spent = s["average"], s["step"], s["spent"]
    start = time.time() - spent
    end = a.until or start + a.minutes * 60

    def save():
        torch.save(dict(model=model.state_dict(), average=average, muon=muon.state_dict(), adam=adam.state_dict(), step=step, spent=time.time() - start),
                   a.out / "model.tmp")
        (a.out / "model.tmp").rename(a.out / "model.pt")

    loader = iter(torch.utils.data.DataLoader(Batches(a, step), batch_size=None, num_workers=1, prefetch_factor=6))
    shown = saved = time.time()
    losses, waits = [], 0.0
    while time.time() < end:
        t0 = time.time()
        _, (pixels, ids, target) = next(loader)
        waits += time.time() - t0
        done = (time.time() - start) / (end - start)
        rate = min(1, (step + 1) / 60) * min(1, max(0, (1 - done) / a.decay))
        for o in (muon, adam):
            for g in o.param_groups:
                g["lr"] = g["base"] * rate
        drop = a.drop if done < 1 - a.decay * 0.6 else 0
        with torch.autocast("cpu", torch.bfloat16):
            small = step < a.grow
            image = image_embeddings(model, pixels.float() / 127.5 - 1, drop, 2 if small else VISION_LAYERS)
            text = text_embeddings(model, ids, 1 if small else TEXT_LAYERS)
        loss = sigmoid_loss(image, text, target.float(), model.logit_scale, model.logit_bias)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 5.0)
        muon.step()
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        with torch.no_grad():
            keep = min(0.995, (1 + step) / (10 + step))
            for n, p in named.items():
                average[n].lerp_(p, 1 - keep)
        losses.append(loss.item())
        if time.time() - shown > 30:
            print(f"step {step} loss {sum(losses) / len(losses):.3f} scale {model.logit_scale.exp().item():.2f} bias {model.logit_bias.item():.2f} "
                  f"rate {rate:.2f} {len(losses) * a.batch / (time.time() - shown):.0f} pictures/s, waited {waits:.0f} s, {done:.0%}", flush=True)
            shown, losses, waits = time.time(), [], 0.0
        if time.time() - saved > 120:
            save()
            saved = time.time()
    save()


if __name__ == "__main__":
    main()
