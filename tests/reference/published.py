#!/usr/bin/env python3
"""Google's own SigLIP against its published logits, from the Hugging Face Hub to the native example; exits with 1 past the bound.

    python tests/reference/published.py [--keep DIR] [--dtype D] [--backend cpu|wgpu]
    python tests/reference/published.py --model google/siglip2-base-patch16-naflex [...]

Downloads google/siglip-base-patch16-224 (813 MB) and the picture COCO 000000039769, verifies each file by what the Hub lists of it, and has
`examples/classify` score "a photo of 2 cats" and "a photo of 2 dogs". transformers' test of the model (tests/models/siglip/test_modeling_siglip.py,
`test_inference`) expects the logits -0.7567 and -10.3354; ours may differ by as much as that test allows in f32, and by what docs/benchmarks.md promises
for weights in fewer bits. It needs a network, and is no part of `./build.sh test`. Only Python's own library is used.

The second form does the same with google/siglip2-base-patch16-naflex (1.5 GB) and the three pictures of transformers' test of that model
(tests/models/siglip2/test_modeling_siglip2.py): a blue circle with a green border on red, 224 × 224, 1024 × 1024 and 1024 × 224 pixels, drawn with Pillow.

A download that was broken off begins anew; with --keep, files that are there and verified stay. For another server of the same layout: --hub, --model,
--picture, --labels and --logits (of each picture, one after the other).
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
# by which logits of f32 may be off: absolutely, and in parts of their size
BOUNDS = {"f32": (1e-3, 1e-3), "f16": (0.05, 0), "q8": (0.5, 0), "q4": (1.0, 0)}
PATIENCE = 60  # seconds without a byte
NAFLEX = "google/siglip2-base-patch16-naflex"
CATS = "http://images.cocodataset.org/val2017/000000039769.jpg"
# what transformers' tests expect: a row for each label, a column for each picture
EXPECTED = {
    "google/siglip-base-patch16-224": {"a photo of 2 cats": [-0.7567], "a photo of 2 dogs": [-10.3354]},
    NAFLEX: {
        "circle": [1.0195, -0.0280, -1.4468],
        "ellipsoid": [-4.5395, -6.2269, -1.5667],
        "blue circle on red background": [4.1757, 5.0358, 3.5159],
        "blue circle with green border on red background": [9.4264, 10.1879, 6.3353],
        "green circle on red background": [2.4409, 3.1058, 4.5491],
        "a dog": [-12.3230, -13.7355, -13.4632],
        "a blue dog with a green border on a red background": [1.1520, 1.1687, -1.9647],
    },
}


def ask(address):
    try:
        return urllib.request.urlopen(address, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        sys.exit(f"{address} answered HTTP {error.code}")
    except OSError as error:
        sys.exit(f"{address} can't be reached: {error}. This check needs a network")


def sums(path):
    """A file's SHA-256, and git's name of it."""
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            git.update(block)
    return sha256.hexdigest(), git.hexdigest()


def is_whole(path, listed):
    sha256, git = sums(path)
    stated = listed.get("lfs", {}).get("oid")
    return sha256 == stated if stated else git == listed["oid"]


def fetch(address, path):
    part = path.with_name(f"{path.name}.part")
    with ask(address) as response, part.open("wb") as file:
        total, done, told = int(response.headers.get("Content-Length") or 0), 0, 0
        try:
            while block := response.read(1 << 20):
                file.write(block)
                done += len(block)
                if done - told >= 5e7:
                    told = done
                    print(f"  {path.name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", flush=True)
        except OSError as error:
            sys.exit(f"{address} broke off after {done} bytes: {error}. Start again")
    if total and done != total:
        sys.exit(f"{address} broke off after {done} of {total} bytes. Start again")
    part.replace(path)


def download(a, folder):
    """The checkpoint as the Hub has it now, each file verified."""
    with ask(f"{a.hub}/api/models/{a.model}/tree/main") as response:
        listing = {entry["path"]: entry for entry in json.load(response)}
    for name in FILES:
        path, listed = folder / name, listing.get(name)
        if not listed:
            # the tokenizer's configuration alone may be missing
            if name != "tokenizer_config.json":
                sys.exit(f"{a.model} has no {name}; there are {', '.join(sorted(listing))}")
            continue
        if not (path.exists() and is_whole(path, listed)):
            fetch(f"{a.hub}/{a.model}/resolve/main/{name}", path)
            if not is_whole(path, listed):
                sys.exit(f"{path} is not the file that the Hub lists: its SHA-256 is {sums(path)[0]}. It was damaged on the way, or replaced meanwhile")
        print(f"{name}: {path.stat().st_size} bytes, SHA-256 {sums(path)[0]}")


def draw_circles(folder):
    """The pictures of the NaFlex model's test: a circle of seven eighths of the shorter side, its border a twentieth of the width."""
    from PIL import Image, ImageDraw

    paths = []
    for width, height in [(224, 224), (1024, 1024), (1024, 224)]:
        picture = Image.new("RGB", (width, height), "red")
        x, y = width // 2, height // 2
        radius = min(x, y) // 8 * 7
        ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill="blue", outline="green", width=width // 20)
        paths.append(folder / f"circle-{width}x{height}.png")
        picture.save(paths[-1])
    return paths


def classify(a, folder, pictures):
    """For each picture the logit of each label."""
    command = [a.example] if a.example else ["cargo", "run", "--release", "--quiet", "--example", "classify", "--"]
    command += ["--model", str(folder), "--image", *map(str, pictures), "--labels", "\n".join(a.labels), "--template", "{}", "--backend", a.backend, "--dtype", a.dtype, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(command)}")
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [{result["label"]: result["logit"] for result in line["results"]} for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder for what is downloaded, for the next time (default: none is kept)")
    parser.add_argument("--dtype", choices=BOUNDS, default="f32")
    parser.add_argument("--backend", choices=["cpu", "wgpu"], default="cpu")
    parser.add_argument("--hub", default="https://huggingface.co", help="the server's origin")
    parser.add_argument("--model", default="google/siglip-base-patch16-224")
    parser.add_argument("--picture", help=f"its address (default: {CATS}, or for {NAFLEX} pictures that are drawn)")
    parser.add_argument("--labels", nargs="+")
    parser.add_argument("--logits", nargs="+", type=float, help="what is expected")
    parser.add_argument("--example", help="the example's program, where it is built already")
    a = parser.parse_args()
    a.hub = a.hub.rstrip("/")
    drawn = a.model == NAFLEX and not a.picture
    expected = EXPECTED.get(a.model, {})
    a.labels = a.labels or list(expected)
    logits = a.logits or [expected[label][i] for i in range(3 if drawn else 1) for label in a.labels if label in expected]
    if not a.labels or len(logits) != len(a.labels) * (3 if drawn else 1):
        parser.error(f"{a.model} has {len(a.labels)} labels and {len(logits)} logits: give --labels and --logits")
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        download(a, folder)
        if drawn:
            pictures = draw_circles(folder)
        else:
            address = a.picture or CATS
            pictures = [folder / (Path(urllib.parse.urlparse(address).path).name or "picture")]
            if not pictures[0].exists():
                fetch(address, pictures[0])
        got = classify(a, folder, pictures)
    absolute, relative = BOUNDS[a.dtype]
    failed = False
    cases = [(path, answer, label) for path, answer in zip(pictures, got, strict=True) for label in a.labels]
    for (path, answer, label), logit in zip(cases, logits, strict=True):
        bound = absolute + relative * abs(logit)
        error = abs(answer[label] - logit)
        failed |= not error <= bound
        print(f"{path.name}, {label}: {answer[label]:.4f}, published {logit:.4f}; off by {error:.1e}, {bound:.1e} is allowed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
