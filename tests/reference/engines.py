#!/usr/bin/env python3
"""The recipes of docs/search.md for other search engines, run as they are printed there; exits with 1 if one finds other pictures than numpy.

    pip install faiss-cpu qdrant-client pyspark     # beside requirements.txt; Spark needs Java 17 or newer
    cargo run --release --example search -- --model DIR --index FILE --images FOLDER
    python tests/reference/engines.py --model DIR --index FILE... [--words "a red car"]

Needs no network, and is no part of `./build.sh test`: Spark alone is half a gigabyte.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs/search.md"
# Of a probability: the recipes print four decimals, and engines sum in other orders.
BOUND = 1.5e-4


def best(folder):
    """The ten best pictures by numpy, all compared: [(probability, id)]."""
    parts = [load_file(file) for file in sorted(folder.glob("part-*.safetensors"))]
    embeddings = np.concatenate([part["embeddings"] for part in parts]).astype(np.float64)
    ids = [entry["id"] for part in parts for entry in json.loads(part["entries"].tobytes())]
    query = np.load(folder / "query.npz")
    scores = 1 / (1 + np.exp(-(query["scale"] * (embeddings @ query["embedding"]) + query["bias"])))
    return [(scores[row].item(), ids[row]) for row in np.argsort(-scores, kind="stable")[:10]], dict(zip(ids, scores.tolist()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the checkpoint that the index was made with")
    parser.add_argument("--index", required=True, nargs="+", type=Path, help="safetensors files of the search example or the page")
    parser.add_argument("--words", default="a red car")
    options = parser.parse_args()
    recipes = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
    if "words.py" not in recipes or len(recipes) < 2:
        sys.exit(f"{DOCUMENT} holds no recipes")
    wrong = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, file in enumerate(options.index, 1):
            (folder / f"part-{number}.safetensors").symlink_to(file.resolve(strict=True))
        model = str(Path(options.model).resolve()) if Path(options.model).exists() else options.model

        def run(recipe, *arguments):
            (folder / recipe).write_text(recipes[recipe])
            process = subprocess.run([sys.executable, recipe, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
            if process.returncode:
                sys.exit(f"{recipe} ended with {process.returncode}: see its message above")
            return process.stdout

        run("words.py", model, options.words)
        expected, scores = best(folder)
        for recipe in [name for name in recipes if name != "words.py"]:
            found = [line.split(" ", 1) for line in run(recipe).splitlines()]
            # Pictures that are equally good may stand in any order.
            off = [abs(float(score) - wanted) for (score, _), (wanted, _) in zip(found, expected)]
            off += [abs(float(score) - scores.get(id, np.inf)) for score, id in found]
            right = len(found) == len(expected) and len({id for _, id in found}) == len(found) and max(off) <= BOUND
            print(f"{recipe}: {len(found)} of {len(scores)} pictures, the best {found[0] if found else None}: {'as numpy' if right else 'NOT as numpy'}")
            wrong |= not right
    for score, id in expected:
        print(f"{score:.4f} {id}")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
