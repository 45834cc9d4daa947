"""Training pictures and captions, made on the fly from rendered drawings: SigLIP's batches."""
import json, random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import captions
from captions import COLOURS
from lexicon import Lexicon

YES, UNSURE, NO = 1, 0, -1
PATCH = 8
PARTS = {  # what a drawing of a group may well show besides: never counted as absent
    "person": ["body part", "clothing"], "animal": ["body part", "paw print"], "smiley": ["body part", "person", "man", "woman", "child", "heart"],
    "vehicle": ["wheel", "window", "door"], "building": ["door", "window", "city", "tower", "flag"], "body part": ["person", "man", "woman"],
    "sport": ["person", "man", "woman", "runner"], "map": ["island", "earth"], "sign": ["arrow", "person", "exclamation mark"],
    "computer": ["electronics"], "electronics": ["computer"], "musical instrument": ["music"], "music": ["musical instrument"],
    "food": ["plate", "drink"], "drink": ["cup", "glass", "bottle", "food"], "plant": ["leaf", "grass"], "tree": ["leaf"], "nature": [],
    "king": ["crown"], "queen": ["crown"], "speech bubble": ["smiley"], "flag": ["star", "cross", "shield"], "playing card": ["heart"],
}
COLOURED = {  # how often a source is drawn from; the rest are one-colour glyphs, whose colour is ours to choose
    "openclipart": 1.0, "noto": 1.3, "noto-v1": 1.3, "fluent-emoji": 0.9, "fluent-emoji-flat": 0.9, "twemoji": 1.3, "streamline-emojis": 1.3, "icon-park": 0.6,
    "flat-color-icons": 1.0, "fluent-color": 1.0, "meteocons": 1.0, "streamline-freehand-color": 1.0, "streamline-ultimate-color": 1.0}
GLYPH = 0.08
RGB = {"red": (220, 30, 30), "orange": (250, 140, 20), "yellow": (250, 220, 30), "green": (30, 160, 60), "blue": (40, 80, 220), "purple": (130, 50, 170),
       "pink": (250, 130, 180), "brown": (120, 75, 35), "black": (15, 15, 15), "white": (248, 248, 248), "gray": (128, 128, 128)}


def variety(source):
    return COLOURED.get(source, GLYPH * 2 if source in ("symbola", "game-icons", "fluent-emoji-high-contrast") else GLYPH)


def labels_of(lex, drawings):
    """[drawings, concepts]: which concepts each drawing shows, may show, does not show."""
    out = np.full((len(drawings), len(lex.names)), NO, np.int8)
    below = {g: [n for n in lex.names if g in lex.closure([n]) and n != g] for g in lex.names}
    near = {n: [b for a, b in lex.confusable if a == n and b in lex.index] for n in lex.names}
    for row, d in zip(out, drawings):
        yes = lex.closure(d["concepts"])
        unsure = lex.closure(d["maybe"])
        for n in d["concepts"]:
            unsure |= {x for x in near[n]}
        for n in yes:
            if lex.is_group[n] and not any(b in yes for b in below[n]):
                unsure |= set(below[n])                    # "bird": might be any bird
            for p in PARTS.get(n, []):
                unsure |= {p, *below.get(p, [])}
        for n in yes:
            if n in ("animal", "food", "plant") and not any(b in yes for b in below[n]):
                unsure |= set(below[n])
        for n in unsure:
            row[lex.index[n]] = UNSURE
        for n in yes:
            row[lex.index[n]] = YES
    return out


def textures(rng, count, side):
    """Backgrounds with nothing in them: clouds of colour, paper, stripes, checks, hills of noise."""
    out = np.empty((count, 3, side, side), np.uint8)
    y, x = np.mgrid[0:side, 0:side] / side
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]) + 1 / side
    for k in range(count):
        a, b = rng.uniform(0, 255, (2, 3, 1, 1))
        if rng.random() < 0.4:
            b = a + rng.uniform(-70, 70, (3, 1, 1))
        kind = rng.random()
        if kind < 0.3:                                     # photo-like: soft shapes out of focus before a landscape of noise, lit from one side
            n = np.fft.ifft2(np.fft.fft2(rng.normal(size=(3, side, side))) / f ** rng.uniform(1.0, 2.0)).real
            n = (n - n.mean((1, 2), keepdims=True)) / n.std((1, 2), keepdims=True)
            grey = rng.uniform(0.3, 1)
            p = a + rng.uniform(15, 60) * (grey * n[:1] + (1 - grey) * n) + (b - a) * np.clip((y - rng.uniform(0.2, 0.9)) * rng.uniform(1, 30), 0, 1)
            for _ in range(rng.integers(0, 9)):
                cx, cy, w, h = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.4), rng.uniform(0.05, 0.4)
                d = np.hypot((x - cx) / w, (y - cy) / h) if rng.random() < 0.6 else np.maximum(abs(x - cx) / w, abs(y - cy) / h)
                cover = np.clip((1 - d) * rng.uniform(1.5, 12), 0, 1) * rng.uniform(0.3, 1)
                p = p * (1 - cover) + cover * (rng.uniform(0, 255, (3, 1, 1)) + rng.uniform(0, 25) * n[:1])
            out[k] = (p * (1 + rng.uniform(-0.5, 0.5) * (x - 0.5))).clip(0, 255)
            continue
        if kind < 0.65:                                     # 1/f noise, more or less rough
            n = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / f ** rng.uniform(0.6, 2.2)).real
            m = (n - n.min()) / np.ptp(n)
        elif kind < 0.77:
            t = rng.uniform(0, np.pi)
            m = 0.5 + 0.5 * np.sin(rng.uniform(6, 60) * (x * np.cos(t) + y * np.sin(t)) + rng.uniform(0, 6))
            m = m > 0.5 if rng.random() < 0.5 else m
        elif kind < 0.85:
            n = rng.integers(2, 9)
            m = ((x * n).astype(int) + (y * n).astype(int)) % 2
        else:                                              # ground and sky
            m = np.clip((y - rng.uniform(0.3, 0.8)) * rng.uniform(4, 60) + 0.05 * rng.normal(size=side)[None] + 0.5, 0, 1)
        p = a + (b - a) * m
        if rng.random() < 0.4:
            p = p + rng.normal(0, rng.uniform(2, 18), (1, side, side))
        out[k] = p.clip(0, 255)
    return torch.from_numpy(out)


def colour_shares(rgb, alpha):
    """[n, 11]: the share of each drawing's area in each colour. rgb [n, 3, h, w] in 0..1."""
    top, low = rgb.amax(1), rgb.amin(1)
    c = (top - low).clamp_min(1e-6)
    r, g, b = rgb.unbind(1)
    h = torch.where(top == r, ((g - b) / c) % 6, torch.where(top == g, (b - r) / c + 2, (r - g) / c + 4)) * 60
    s = (top - low) / top.clamp_min(1e-6)
    gray = (s < 0.2) | (top < 0.2)
    named = torch.stack([
        ~gray & ((h < 14) | (h >= 345)) & ~((s < 0.55) & (top > 0.7)) & (top > 0.4),
        ~gray & (h >= 14) & (h < 40) & (top >= 0.62), ~gray & (h >= 40) & (h < 68), ~gray & (h >= 68) & (h < 170), ~gray & (h >= 170) & (h < 255),
        ~gray & (h >= 255) & (h < 310), ~gray & (((h >= 310) & (h < 345)) | (((h < 14) | (h >= 345)) & (s < 0.55) & (top > 0.7))),
        ~gray & (((h >= 14) & (h < 40) & (top < 0.62)) | (((h < 14) | (h >= 345)) & (top <= 0.4))),
        gray & (top < 0.25), gray & (top > 0.85), gray & (top >= 0.25) & (top <= 0.85)], 1).float()
    w = alpha.clamp(0, 1)
    return (named * w).flatten(2).sum(2) / w.flatten(2).sum(2).clamp_min(1e-3)


def hue_turn(rgb, degrees, saturation, brightness, contrast):
    """YIQ rotation and the usual jitters; rgb [n, 3, h, w], the rest [n]."""
    t = torch.deg2rad(degrees)
    to = torch.tensor([[.299, .587, .114], [.596, -.274, -.322], [.211, -.523, .312]])
    back = torch.linalg.inv(to)
    z, o, c, s = torch.zeros_like(t), torch.ones_like(t), t.cos() * saturation, t.sin() * saturation
    m = back @ torch.stack([o, z, z, z, c, -s, z, s, c], -1).view(-1, 3, 3) @ to
    x = torch.einsum("nij,njhw->nihw", m, rgb)
    return ((x - 0.5) * contrast.view(-1, 1, 1, 1) + 0.5 + brightness.view(-1, 1, 1, 1)).clamp(0, 1)


class Scenes:
    def __init__(self, data: Path, encode, side=64, seed=0, backgrounds=1500, easy=0.0, small=0.0):
        every = json.loads((data / "drawings.json").read_text())
        keep = [i for i, d in enumerate(every) if d["split"] == "train"]
        self.drawings = [every[i] for i in keep]
        self.rows = np.array(keep)
        self.pixels = np.load(data / "drawings.npy", mmap_mode="r")       # shared between processes, read as needed
        self.lex, self.side, self.seed, self.easy, self.small = Lexicon(), side, seed, easy, small
        self.encode, self.known_ids = encode, {}
        self.labels = torch.from_numpy(labels_of(self.lex, self.drawings))
        self.background = textures(np.random.default_rng(seed), backgrounds, side)
        count = {}
        for d in self.drawings:
            for c in d["concepts"]:
                count[c] = count.get(c, 0) + variety(d["source"])
        weights = np.array([variety(d["source"]) * min(count[c] for c in d["concepts"]) ** -0.65 for d in self.drawings])
        self.line = torch.tensor([d["source"] not in COLOURED for d in self.drawings])
        self.cumulative = np.cumsum(weights / weights.sum())
        mild = weights * np.where(self.line.numpy(), 0.3, 1)
        self.cumulative_easy = np.cumsum(mild / mild.sum())
        coloured = weights * ~self.line.numpy()
        self.cumulative_small = np.cumsum(coloured / coloured.sum())
        self.trained = sorted(count)
        self.common = list(np.cumsum([count[c] ** 0.35 for c in self.trained]))
        box, opaque = [], []
        for i in range(0, len(keep), 1000):
            a = self.pixels[keep[i:i + 1000]][..., 3]
            width, height = (a.max(1) > 20).sum(1) / a.shape[2], (a.max(2) > 20).sum(1) / a.shape[1]
            box.append(np.stack([width, height], 1))
            opaque.append(a.mean((1, 2)) / 255 / np.maximum(width * height, 1e-3) > 0.97)
        self.box = torch.from_numpy(np.concatenate(box)).float().clamp_min(0.05)     # share of the square, x and y
        self.opaque = torch.from_numpy(np.concatenate(opaque))
        self.several = torch.tensor([d["source"] == "openclipart" for d in self.drawings])

    def pick(self, r, n, easy=False, cumulative=None):
        cumulative = cumulative if cumulative is not None else self.cumulative_easy if easy else self.cumulative
        at = np.searchsorted(cumulative, [r.random() for _ in range(n)])
        return torch.from_numpy(at.clip(0, len(self.drawings) - 1))

    def concept(self, r):
        return r.choices(self.trained, cum_weights=self.common)[0]

    def foreground(self, idx, r, easy=False):
        """RGBA in 0..1 after colour play, [n, 4, 72, 72], and colour shares [n, 11]."""
        n = len(idx)
        a = torch.from_numpy(self.pixels[self.rows[idx.numpy()]]).permute(0, 3, 1, 2).contiguous().float() / 255
        rgb, alpha = a[:, :3], a[:, 3:]
        if easy:                                           # as it is, but for some that are in other colours: a cat may be black
            other = torch.rand(n) < 0.3
            if other.any():
                k = int(other.sum())
                rgb = rgb.clone()
                rgb[other] = hue_turn(rgb[other], torch.rand(k) * 360, torch.where(torch.rand(k) < 0.3, torch.zeros(k), 1 + 0.3 * torch.randn(k)).clamp(0, 2),
                                      0.1 * torch.randn(k), 1 + 0.2 * torch.randn(k))
            return torch.cat([rgb, alpha], 1), colour_shares(rgb[:, :, ::4, ::4], alpha[:, :, ::4, ::4])
        turn = torch.where(torch.rand(n) < 0.3, torch.rand(n) * 360, torch.randn(n) * 6)
        sat = torch.where(torch.rand(n) < 0.08, torch.zeros(n), 1 + 0.25 * torch.randn(n)).clamp(0, 2)
        rgb = hue_turn(rgb, turn, sat, 0.06 * torch.randn(n), 1 + 0.15 * torch.randn(n))
        flat = self.line[idx]
        flat = flat | ((torch.rand(n) < 0.03) & ~self.opaque[idx])
        ink = torch.tensor([RGB[r.choice(COLOURS)] if r.random() < 0.6 else RGB["black"] for _ in range(n)]) / 255 + 0.03 * torch.randn(n, 3)
        rgb = torch.where(flat.view(-1, 1, 1, 1), ink.clamp(0, 1).view(n, 3, 1, 1), rgb)
        # line-only: edges of brightness and outline, drawn dark
        lines = (torch.rand(n) < 0.12) & ~flat
        if lines.any():
            over = (rgb[lines] * alpha[lines] + (1 - alpha[lines])).mean(1, keepdim=True)
            e = torch.zeros_like(over)
            for src in (over, alpha[lines]):
                e[..., 1:, :] += (src[..., 1:, :] - src[..., :-1, :]).abs()
                e[..., :, 1:] += (src[..., :, 1:] - src[..., :, :-1]).abs()
            alpha = alpha.clone()
            alpha[lines] = (e * 2.5).clamp(0, 1)
            rgb = rgb.clone()
            rgb[lines] = ink[lines].clamp(0, 0.4).view(-1, 3, 1, 1) * 0.6
        return torch.cat([rgb, alpha], 1), colour_shares(rgb[:, :, ::4, ::4], alpha[:, :, ::4, ::4])

    def place(self, fg, idx, r, mode):
        """Scales, stretches, turns, flips and moves; mode per drawing: "one" or (slot, of how many)."""
        n, side = len(idx), self.side
        theta = torch.zeros(n, 2, 3)
        for k in range(n):
            bx, by = self.box[idx[k]].tolist()
            if mode[k] == "one":
                fill = r.uniform(0.72, 1.0) if r.random() < 0.75 else r.uniform(0.42, 0.72)
                sx = sy = fill
                if r.random() < 0.45:                      # a picture cropped to the drawing, squashed to a square
                    mix = r.uniform(0.4, 1.0)
                    sx, sy = sx / bx ** mix, sy / by ** mix
                sx, sy = sx * 2 ** r.gauss(0, 0.16), sy * 2 ** r.gauss(0, 0.16)
                room = max(0, 1 - sx * bx), max(0, 1 - sy * by)
                cx, cy = r.uniform(-1, 1) * room[0] * 0.8, r.uniform(-1, 1) * room[1] * 0.8
            else:
                slot, of, across = mode[k]
                s = r.uniform(0.8, 1.05) / of
                sx, sy = (s * 1.0, s * r.uniform(1.0, 1.5)) if across else (s * r.uniform(1.0, 1.5), s)
                sx, sy = min(sx, 0.7), min(sy, 0.7)
                centre = (2 * slot + 1) / of - 1 + r.gauss(0, 0.05)
                other = r.uniform(-0.3, 0.3)
                cx, cy = (centre, other) if across else (other, centre)
            t = np.deg2rad(r.gauss(0, 10) if r.random() < 0.93 else r.uniform(-180, 180))
            fx = -1 if r.random() < 0.5 else 1
            fwd = np.array([[sx, 0], [0, sy]]) @ np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]]) @ np.array([[fx, r.gauss(0, 0.08)], [0, 1]])
            inv = np.linalg.inv(fwd)
            theta[k, :, :2] = torch.from_numpy(inv)
            theta[k, :, 2] = torch.from_numpy(-inv @ np.array([cx, cy]))
        pre = torch.cat([fg[:, :3] * fg[:, 3:], fg[:, 3:]], 1)
        return F.grid_sample(pre, F.affine_grid(theta, (n, 4, side, side), align_corners=False), align_corners=False)

    def apart(self, r, n):
        """Indices [n, 3] of drawings of which none shows, or may show, what another one of its row is."""
        rows = self.pick(r, n * 3, cumulative=self.cumulative_small).view(n, 3)
        concepts = [[[self.lex.index[c] for c in self.drawings[i]["concepts"]] for i in row] for row in rows.tolist()]
        for k in range(n):
            for slot in (1, 2):
                for _ in range(20):
                    before = range(slot)
                    if all((self.labels[rows[k, b]][concepts[k][slot]] == NO).all() and (self.labels[rows[k, slot]][concepts[k][b]] == NO).all() for b in before):
                        break
                    rows[k, slot] = self.pick(r, 1, cumulative=self.cumulative_small)[0]
                    concepts[k][slot] = [self.lex.index[c] for c in self.drawings[rows[k, slot]]["concepts"]]
        return rows

    def small_backgrounds(self, n, side):
        """Plain, lit from one side, or softly varied, [n, 3, side, side]: mostly light."""
        light = torch.where(torch.rand(n, 1, 1, 1) < 0.7, torch.rand(n, 3, 1, 1) / 3 + 2 / 3, torch.rand(n, 3, 1, 1))
        ramp = torch.linspace(0, 1, side) * (torch.rand(n, 1, 1, 1) - 0.5) * 0.4
        bg = light + torch.where(torch.rand(n, 1, 1, 1) < 0.5, ramp, ramp.mT)
        bg = torch.where(torch.rand(n, 1, 1, 1) < 0.2, 1.0, bg)
        soft = (torch.rand(n) < 0.15).nonzero().flatten()
        if len(soft):
            tex = self.background[torch.randint(len(self.background), (len(soft),))].float() / 255
            bg[soft] = F.interpolate(F.avg_pool2d(tex, 4), (side, side), mode="bicubic").clamp(0, 1)
        return bg.clamp(0, 1)

    def small_batch(self, r, size, numbers):
        """As `batch`: each picture of two or three small drawings of different concepts, none over another, a fourteenth to a fifth of it each.

        After training on whole drawings alone, heat maps pointed at the wrong one of two drawings of 20 pixels in more than a fifth of the pictures (pointing.py).
        Here it is known where each drawing is. So the rows of `target` are three times as many as pictures: what each shows, and what remains of it for
        a head that doesn't see the patches of its first drawing, or of its second. `seen` [3 size, patches] says which patches it sees."""
        main = self.apart(r, size)
        number = [2 if r.random() < 0.6 else 3 for _ in range(size)]
        scale, n = 2, self.side // PATCH                   # drawn twice as large, then shrunk as a picture is: places between pixels
        side = self.side * scale
        bg = self.small_backgrounds(size, side)
        slots = [(k, slot) for k in range(size) for slot in range(number[k])]
        idx = torch.stack([main[k, slot] for k, slot in slots])
        fg, _ = self.foreground(idx, r, easy=True)
        fg = torch.cat([fg[:, :3] * fg[:, 3:], fg[:, 3:]], 1)
        seen = torch.ones(3, size, n, n, dtype=torch.bool)
        whole = fg.shape[-1]
        boxes, at = [], 0
        for k in range(size):
            mine = range(at, at + number[k])
            at += number[k]
            sizes = []
            for j in mine:
                longer = side * r.uniform(0.26, 0.46 if number[k] == 2 else 0.38)
                stretch = 2 ** r.gauss(0, 0.1)
                w, h = (self.box[idx[j]] / self.box[idx[j]].max()).tolist()
                sizes.append((max(8, min(round(w * longer * stretch), side // 2)), max(8, min(round(h * longer / stretch), side // 2))))
            placed, tries = [], 0
            while len(placed) < len(sizes):
                w, h = sizes[len(placed)]
                x, y = r.randint(0, side - w), r.randint(0, side - h)
                if not any(x < b[2] and b[0] < x + w and y < b[3] and b[1] < y + h for b in placed):
                    placed.append((x, y, x + w, y + h))
                tries += 1
                if tries % 200 == 0:                       # one in the middle leaves the others no room
                    placed.clear()
                    sizes = [(w * 9 // 10, h * 9 // 10) for w, h in sizes]
            for slot, (j, (x0, y0, x1, y1)) in enumerate(zip(mine, placed)):
                w, h = (self.box[idx[j]] * whole).round().long().clamp(1, whole).tolist()
                left, top = (whole - w) // 2, (whole - h) // 2
                one = fg[j:j + 1, :, top:top + h, left:left + w]
                one = F.interpolate(one.flip(-1) if r.random() < 0.5 else one, (y1 - y0, x1 - x0), mode="bilinear", antialias=True)[0]
                bg[k, :, y0:y1, x0:x1] = bg[k, :, y0:y1, x0:x1] * (1 - one[3:]) + one[:3]
                if slot < 2:
                    p = PATCH * scale
                    seen[1 + slot, k, y0 // p:-(-y1 // p), x0 // p:-(-x1 // p)] = False
        x = F.interpolate(bg, (self.side, self.side), mode="bicubic", antialias=True)
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        labels = self.labels[main]                         # [size, 3, concepts]
        labels[torch.tensor(number) == 2, 2] = NO
        truth = torch.cat([labels.amax(1), labels[:, 1:].amax(1), labels[:, ::2].amax(1)])
        known = torch.full((3 * size, len(COLOURS)), UNSURE, dtype=torch.int8)
        count, kind = torch.ones(3 * size, dtype=torch.long), torch.full((3 * size,), 3)
        ids, target = self.captions(r, truth, known, count, kind, main[:, 0].repeat(3), main[:, 1], numbers)
        return pixels, ids, target, seen.flatten(2).flatten(0, 1)

    def batch(self, size, own, near, far, step):
        """pixels uint8 [size, 3, side, side], ids [captions, 16], target int8 [size, captions] in {-1, 0, 1}, and None or `small_batch`'s `seen`.

        Captions: `own` of the pictures' own, `near` of concepts that other pictures of the batch show, `far` of any concepts."""
        r = random.Random(self.seed * 1_000_003 + step)
        torch.manual_seed(self.seed * 7_919 + step)
        if self.small and r.random() < self.small:
            return self.small_batch(r, size, (own, near, far))
        easy = r.random() < self.easy                      # one whole drawing on white or a plain colour, as it is
        main, other = self.pick(r, size, easy), self.pick(r, size)
        kind = torch.tensor(r.choices([0, 1, 2, 3, 4], [76, 8, 4, 10, 2], k=size))     # one, two alike, three alike, two different, nothing
        kind = torch.zeros_like(kind) if easy else kind
        fg, share = self.foreground(main, r, easy)
        # background
        bg = torch.ones(size, 3, self.side, self.side)
        pick = torch.rand(size) * (0.5 if easy else 1)
        plain = torch.rand(size, 3, 1, 1)
        bg = torch.where((pick > 0.42).view(-1, 1, 1, 1), plain.expand_as(bg), bg)
        ramp = torch.linspace(0, 1, self.side)
        slope = torch.where(torch.rand(size, 1, 1, 1) < 0.5, ramp.view(1, 1, 1, -1), ramp.view(1, 1, -1, 1))
        bg = torch.where(((pick > 0.56) & (pick <= 0.68)).view(-1, 1, 1, 1), plain + (torch.rand(size, 3, 1, 1) - plain) * slope, bg)
        tex = self.background[torch.randint(len(self.background), (size,))].float() / 255
        bg = torch.where((pick > 0.68).view(-1, 1, 1, 1), tex, bg)
        # one-colour drawings must stand out
        ink = (fg[:, :3] * fg[:, 3:]).mean((2, 3)) / fg[:, 3:].mean((2, 3)).clamp_min(1e-3)
        hidden = ((ink.mean(1) - bg.mean((1, 2, 3))).abs() < 0.22) & ((ink - bg.mean((2, 3))).abs().amax(1) < 0.4)
        fix = torch.where(ink.mean(1) > 0.5, 0.08, 0.95).view(-1, 1, 1, 1)
        bg = torch.where(hidden.view(-1, 1, 1, 1), fix.expand_as(bg), bg)
        # layers
        count = torch.ones(size, dtype=torch.long)
        count[kind == 1], count[kind == 2], count[kind == 4] = 2, 3, 0
        across = [r.random() < 0.6 for _ in range(size)]
        of = torch.where(kind == 3, 2, count.clamp_min(1)).tolist()
        for slot in range(3):
            rows = torch.tensor([i for i in range(size) if kind[i] != 4 and slot < of[i]], dtype=torch.long)
            if not len(rows):
                continue
            swap = (kind[rows] == 3) & (slot == 1)
            drawing = torch.where(swap, other[rows], main[rows])
            f = fg[rows]
            if swap.any():
                f = f.clone()
                f[swap] = self.foreground(other[rows][swap], r)[0]
            mode = ["one" if of[i] == 1 else (slot, of[i], across[i]) for i in rows.tolist()]
            layer = self.place(f, drawing, r, mode)
            bg[rows] = bg[rows] * (1 - layer[:, 3:]) + layer[:, :3]
        x = bg
        if easy:
            return (x.clamp(0, 1) * 255).round().to(torch.uint8), *self.truth(r, share, count, kind, main, other, (own, near, far)), None
        for i in (torch.rand(size) < 0.08).nonzero().flatten().tolist():              # something in front
            w, h = r.randint(6, self.side // 3), r.randint(6, self.side // 3)
            at, up = r.randint(0, self.side - w), r.randint(0, self.side - h)
            x[i, :, up:up + h, at:at + w] = self.background[r.randrange(len(self.background)), :, :h, :w].float() / 255
        blur = torch.rand(size) < 0.12
        if blur.any():
            x[blur] = F.avg_pool2d(F.pad(x[blur], (1, 1, 1, 1), mode="replicate"), 3, 1)
        noisy = torch.rand(size) < 0.12
        if noisy.any():
            x[noisy] += 0.05 * torch.randn_like(x[noisy])
        if r.random() < 0.5:
            x = x * (1 + 0.12 * torch.randn(size, 1, 1, 1)) + 0.04 * torch.randn(size, 3, 1, 1)
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels, *self.truth(r, share, count, kind, main, other, (own, near, far)), None

    def truth(self, r, share, count, kind, main, other, numbers):
        """What each picture shows, and captions with it."""
        truth = self.labels[main].clone()
        truth[kind == 3] = torch.maximum(truth[kind == 3], self.labels[other[kind == 3]])
        truth[kind == 4] = NO
        known = torch.full_like(share, UNSURE, dtype=torch.int8)
        known[share >= 0.5] = YES
        known[share < 0.12] = NO
        known[kind == 3] = UNSURE
        known[kind == 4] = NO
        return self.captions(r, truth, known, count, kind, main, other, numbers)

    def captions(self, r, truth, known, count, kind, main, other, numbers):
        lex, size, texts, columns = self.lex, len(other), [], []     # truth may have more rows: of the same pictures, partly seen

        def need(concepts, colour=None, number=None, own=None):
            col = torch.stack([truth[:, lex.index[c]] for c in concepts]).amin(0)
            if colour is not None:
                col = torch.minimum(col, known[:, colour])
            if number is not None:
                n = torch.where(count == number, YES, NO).to(torch.int8)
                n[(count == 1) & self.several[main]] = UNSURE
                n[kind == 3] = UNSURE
                col = torch.minimum(col, n)
            if own is not None:                            # an artist's own title: true of this drawing, unknown of its like
                col = torch.where(col >= UNSURE, UNSURE, NO).to(torch.int8)
                col[main == main[own]] = YES
                col[kind == 4] = NO
            columns.append(col)

        def word(c, used=None):
            return used if used and r.random() < 0.3 else c if r.random() < 0.7 else r.choice(lex.words[c])

        own, near, far = numbers
        for i in r.sample(range(size), min(own, size)):
            d = self.drawings[main[i]]
            c = r.choice(list(d["concepts"]))
            w = word(c, d["concepts"][c])
            p = r.random()
            if kind[i] == 4:
                c = self.concept(r)
                texts.append(captions.fill(r, captions.name(r, c)))
                need([c])
            elif kind[i] == 3 and p < 0.6:
                c2 = r.choice(list(self.drawings[other[i]]["concepts"]))
                texts.append(captions.fill(r, f"{captions.article(w)} and {captions.article(word(c2))}"))
                need([c, c2])
            elif count[i] > 1 and p < 0.6:
                texts.append(captions.fill(r, f"{r.choice(captions.COUNTS[int(count[i])])} {captions.plural(w)}"))
                need([c], number=int(count[i]))
            elif (known[i] == YES).any() and p < 0.2:
                k = int((known[i] == YES).nonzero()[0])
                w = f"{COLOURS[k]} {w}"
                texts.append(captions.fill(r, w if r.random() < 0.3 else captions.article(w)))
                need([c], colour=k)
            elif 0.2 < p < 0.3 and kind[i] == 0 and 3 <= len(d["title"]) < 40:
                texts.append(captions.fill(r, d["title"] if r.random() < 0.5 else captions.article(d["title"])))
                need([c], own=i)
            elif 0.3 < p < 0.4:
                c = r.choice(sorted(lex.closure([c])))
                texts.append(captions.fill(r, captions.name(r, c)))
                need([c])
            else:
                texts.append(captions.fill(r, captions.name(r, w)))
                need([c])
        shown = sorted({c for i in {*main.tolist(), *other[kind[:size] == 3].tolist()} for c in self.drawings[i]["concepts"]})
        for c in r.sample(shown, min(near, len(shown))) + [self.concept(r) for _ in range(far)]:
            p = r.random()
            if p < 0.06:
                k = r.randrange(len(COLOURS))
                texts.append(captions.fill(r, captions.article(f"{COLOURS[k]} {word(c)}")))
                need([c], colour=k)
            elif p < 0.10:
                n = r.choice([2, 3])
                texts.append(captions.fill(r, f"{r.choice(captions.COUNTS[n])} {captions.plural(c)}"))
                need([c], number=n)
            else:
                texts.append(captions.fill(r, captions.name(r, word(c))))
                need([c])
        return self.ids(texts), torch.stack(columns, 1)

    def ids(self, texts):
        """Token ids, each caption encoded once."""
        new = [t for t in dict.fromkeys(texts) if t not in self.known_ids]
        if new:
            if len(self.known_ids) > 200_000:
                self.known_ids.clear()
                new = list(dict.fromkeys(texts))
            self.known_ids.update(zip(new, self.encode(new)))
        return torch.stack([self.known_ids[t] for t in texts])
