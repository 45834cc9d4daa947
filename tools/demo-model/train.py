#!/usr/bin/env python3
"""Trains the demo model: a small SigLIP, on drawings from render.py, with the pairwise sigmoid loss.

    python train.py --data DATA --tokenizer TOKENIZER --out RUN --minutes 60 [--from FOLDER] [--resume]

The loss is SigLIP's (Zhai et al. 2023, equation 1): -log sigmoid(z (t x·y + b)) over all picture-caption pairs of a batch,
with t = exp(t') and t' = log 10 at the start. The paper starts b at -10, about the log-odds of a positive pair in its batches of 16 thousand;
here about 1.2 % of a batch's pairs are positive, so b starts at log(0.012 / 0.988) = -4.4 (a short run from -10 stayed
at chance). Two more things differ, since captions here come from a few hundred concepts:
  - a caption that is true of several pictures of the batch counts as positive for each of them (z = 1), not as a negative;
  - a pair of which it is not known whether it matches ("a bird" drawn, "a parrot" asked) is left out of the sum.
A batch holds captions of some pictures' own, of concepts that other pictures show, and of any concepts: negatives that need no picture.
Matrices inside the encoders are updated with Muon, everything else with AdamW; warm-up, constant rate, then linear decay to 0.
Half of the patches is dropped until late in that decay. Each process learns from pictures of its own, and their weights are averaged every few
steps (local SGD): on a machine with other work, processes that average gradients wait for each other at every step.
With --small, a share of the batches are pictures of several small drawings, and the pooling head is asked for each of them three times: with all it
sees, and without the patches of one drawing or of another, when that one's captions no longer hold. So it learns what is small, and where it is.
RUN/model.pt holds all state: --resume goes on from it after a kill, and without it from the weights of the folder given with --from.
"""
import argparse, math, time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

from scenes import PATCH, Scenes

WIDTH, SIDE, VISION_LAYERS, TEXT_LAYERS = 160, 64, 6, 3   # 3.6 M parameters: with its tokenizer under 8 MB in f16


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
                if p.grad is None:                         # the text encoder, in a step that spares it
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                m.mul_(g["momentum"]).add_(p.grad)
                u = (p.grad + g["momentum"] * m).bfloat16()
                u = u.mT if p.shape[0] > p.shape[1] else u
                shapes.setdefault(tuple(u.shape), []).append((p, u))
            for items in shapes.values():
                for (p, _), u in zip(items, orthogonal(torch.stack([u for _, u in items]))):
                    u = u.mT if p.shape[0] > p.shape[1] else u
                    p.mul_(1 - g["lr"] * g["weight_decay"]).add_(u.float(), alpha=-g["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(x):
    x = x / (x.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def half(layer):
    return layer.weight.bfloat16(), layer.bias.bfloat16()


def block(layer, x):
    """One encoder layer as transformers computes it, in bfloat16, with one product for query, key and value, and GELU itself
    instead of its tanh approximation: they differ by less than 0.0005, and on CPUs its gradient is four times as fast."""
    b, n, d = x.shape
    a, heads = layer.self_attn, layer.self_attn.num_heads
    w, bias = torch.cat([a.q_proj.weight * (d // heads) ** -0.5, a.k_proj.weight, a.v_proj.weight]), torch.cat([a.q_proj.bias * (d // heads) ** -0.5, a.k_proj.bias, a.v_proj.bias])
    x = x.view(-1, d)
    y = F.layer_norm(x, (d,), *half(layer.layer_norm1), layer.layer_norm1.eps)
    q, k, v = F.linear(y, w.bfloat16(), bias.bfloat16()).view(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4).contiguous().view(3, b * heads, n, d // heads)
    y = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).view(b, heads, n, d // heads).transpose(1, 2).reshape(-1, d)
    x = x + F.linear(y, *half(a.out_proj))
    y = F.layer_norm(x, (d,), *half(layer.layer_norm2), layer.layer_norm2.eps)
    return (x + F.linear(F.gelu(F.linear(y, *half(layer.mlp.fc1))), *half(layer.mlp.fc2))).view(b, n, d)


def image_embeddings(model, pixels, drop=0.0, seen=None):
    """[pictures, width]; with `seen` [k pictures, patches] one for each of its rows, of a head that sees these patches alone."""
    v = model.vision_model
    e, n = v.embeddings, pixels.shape[-1] // PATCH
    x = pixels.view(len(pixels), 3, n, PATCH, n, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(len(pixels), n * n, -1).bfloat16()
    where = e.position_embedding.weight.bfloat16()
    if drop:
        order = torch.rand(x.shape[:2]).argsort(1)[:, :round(n * n * (1 - drop))]
        x, where = x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[2])), F.embedding(order, where)
    x = F.linear(x, e.patch_embedding.weight.flatten(1).bfloat16(), e.patch_embedding.bias.bfloat16()) + where
    for layer in v.encoder.layers:
        x = block(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        x = v.post_layernorm(x)
        if seen is None:
            return F.normalize(v.head(x).float(), dim=-1)
        h, k = v.head, len(seen) // len(x)
        x = x.repeat(k, 1, 1)
        x = h.attention(h.probe.repeat(len(x), 1, 1), x, x, key_padding_mask=torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, -1e4), need_weights=False)[0]
        return F.normalize((x + h.mlp(h.layernorm(x)))[:, 0].float(), dim=-1)


def text_embeddings(model, ids):
    unique, where = torch.unique(ids, dim=0, return_inverse=True)
    t = model.text_model
    x = t.embeddings(unique).bfloat16()
    for layer in t.encoder.layers:
        x = block(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        return F.normalize(t.head(t.final_layer_norm(x[:, -1])).float(), dim=-1)[where]


def sigmoid_loss(image, text, target, scale, bias):
    logits = image @ text.T * scale.exp() + bias
    pair = -F.logsigmoid(target * logits) * (target != 0)
    return pair.sum() / len(image)


def start_weights(folder, model):
    """A model folder's weights, so that a run can go on from what was shipped."""
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(state)


def run(rank, a):
    """One of `--processes` equals: each composes and learns from pictures of its own; every few steps their weights are averaged."""
    torch.set_num_threads(1)
    if a.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{(a.out / 'meet').resolve()}", rank=rank, world_size=a.processes)
    torch.manual_seed(a.seed)
    tok = SiglipTokenizer.from_pretrained(a.tokenizer)
    model = SiglipModel._from_config(config(tok.vocab_size, tok.model_max_length), attn_implementation="eager")
    with torch.no_grad():
        model.logit_scale.fill_(math.log(10))
        model.logit_bias.fill_(a.bias)
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
    step, spent = 0, 0.0
    average = {n: p.detach().clone() for n, p in named.items()}
    if a.resume and (a.out / "model.pt").exists():
        s = torch.load(a.out / "model.pt", weights_only=True)
        model.load_state_dict(s["model"])
        for o, k in ((muon, "muon"), (adam, "adam")):
            base = [g["base"] for g in o.param_groups]
            o.load_state_dict(s[k])
            for g, b in zip(o.param_groups, base):         # a rate given anew counts
                g["base"] = b
        average, step, spent = s["average"], s["step"], s["spent"]
    elif a.start:
        start_weights(a.start, model)
        with torch.no_grad():                              # fitted to the held-out source when it was shipped: back to what suits training
            model.logit_bias.fill_(a.bias)
        average = {n: p.detach().clone() for n, p in named.items()}
    encode = lambda texts: torch.tensor(tok(texts, padding="max_length", truncation=True)["input_ids"])
    scenes = Scenes(a.data, encode, SIDE, a.seed, easy=a.easy, small=a.small)
    start = time.time() - spent
    end = a.until or start + a.minutes * 60
    begun = step

    def save():
        torch.save(dict(model=model.state_dict(), average=average, muon=muon.state_dict(), adam=adam.state_dict(), step=step, spent=time.time() - start),
                   a.out / "model.tmp")
        (a.out / "model.tmp").rename(a.out / "model.pt")

    shown = saved = time.time()
    losses, composing, cpu = [], 0.0, time.process_time()
    params = list(named.values())
    while True:
        done = (time.time() - start) / (end - start)
        if (step - begun) % a.sync == 0:                   # rarely, since on a busy machine each waits for the other here
            over = torch.tensor(float(done >= 1 or a.steps is not None and step - begun >= a.steps))
            if a.processes > 1:
                dist.broadcast(over, 0)
                if step > begun:
                    flat = torch.cat([p.detach().flatten() for p in params])
                    dist.all_reduce(flat)
                    with torch.no_grad():
                        for p, v in zip(params, flat.div_(a.processes).split([p.numel() for p in params])):
                            p.copy_(v.view_as(p))
            if step > begun:
                turns = (step - begun) // a.sync
                with torch.no_grad():
                    torch._foreach_lerp_(list(average.values()), params, 1 - min(a.average ** a.sync, (1 + turns) / (10 + turns)))
            if rank == 0 and time.time() - saved > 120:
                save()
                saved = time.time()
            if over:
                break
        t0 = time.process_time()
        pixels, ids, target, seen = scenes.batch(a.batch, a.own, a.near, a.far, step * a.processes + rank)
        composing += time.process_time() - t0
        rate = min(1, (step - begun + 1) / 40) * min(1, max(0, (1 - done) / a.decay))
        for o in (muon, adam):
            for g in o.param_groups:
                g["lr"] = g["base"] * rate
        drop = a.drop if done < 1 - a.decay * a.whole and seen is None else 0
        image = image_embeddings(model, pixels.float() / 127.5 - 1, drop, seen)
        with torch.set_grad_enabled(step % a.text_every == 0):
            text = text_embeddings(model, ids)
        loss = sigmoid_loss(image, text, target.float(), model.logit_scale, model.logit_bias)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 5.0)
        muon.step()
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        losses.append(loss.item())
        if rank == 0 and time.time() - shown > 30:
            wall, used = time.time() - shown, time.process_time() - cpu
            print(f"step {step} loss {sum(losses) / len(losses):.3f} scale {model.logit_scale.exp().item():.2f} bias {model.logit_bias.item():.2f} rate {rate:.2f} "
                  f"{len(losses) * a.batch * a.processes / wall:.0f} pictures/s, {used / wall:.0%} of a core, {composing / used:.0%} of it composing, {done:.1%}", flush=True)
            shown, losses, composing, cpu = time.time(), [], 0.0, time.process_time()
    if rank == 0:
        save()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--tokenizer", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--from", dest="start", type=Path, help="model folder whose weights to start from, such as ../../www/lib/models/demo")
    ap.add_argument("--minutes", type=float, default=60, help="wall-clock length of the whole run; the rate decays over its last part")
    ap.add_argument("--until", type=float, help="... or the end as seconds since 1970")
    ap.add_argument("--steps", type=int, help="... or so many steps at most")
    ap.add_argument("--decay", type=float, default=0.3, help="share of the run in which the rate falls to 0")
    ap.add_argument("--whole", type=float, default=0.6, help="share of that decay in which no patches are dropped")
    ap.add_argument("--batch", type=int, default=128, help="pictures per process and step")
    ap.add_argument("--own", type=int, default=48, help="captions per batch that are a picture's own, with colours, counts and pairs")
    ap.add_argument("--near", type=int, default=72, help="captions per batch of concepts its other pictures show")
    ap.add_argument("--far", type=int, default=40, help="captions per batch of any concepts")
    ap.add_argument("--lr", type=float, default=1.5e-3)
    ap.add_argument("--muon-lr", type=float, default=0.02)
    ap.add_argument("--sync", type=int, default=10, help="steps between averagings of the processes' weights")
    ap.add_argument("--text-every", type=int, default=2, help="steps between gradients of the text encoder")
    ap.add_argument("--drop", type=float, default=0.5, help="share of patches left out")
    ap.add_argument("--bias", type=float, default=-4.4, help="logit bias at the start: log-odds of a pair's being positive, see above")
    ap.add_argument("--average", type=float, default=0.995, help="how much of the running average of the weights a step keeps")
    ap.add_argument("--easy", type=float, default=0.3, help="share of batches with whole drawings on plain backgrounds")
    ap.add_argument("--small", type=float, default=0.0, help="share of batches with several small drawings to a picture, no patches dropped; --easy is a share of the others")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--processes", type=int, default=2, help="one per core: each composes its pictures and learns from them")
    ap.add_argument("--resume", action="store_true", help="go on from OUT/model.pt if it is there, else from --from")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "meet").unlink(missing_ok=True)
    if a.processes > 1:
        mp.spawn(run, (a,), a.processes)
    else:
        run(0, a)


if __name__ == "__main__":
    main()
