#!/usr/bin/env python3
"""What PyTorch (CUDA) and onnxruntime (WebGPU) take on this machine's GPU, to compare `cargo bench --bench kernels` with.

    python benches/peers/gpu.py [--model DIR]... [--onnx FILE]...

DIR is a SigLIP checkpoint, FILE a tower exported by export.py. All in f32: no TF32, no f16. Needs torch and transformers with CUDA, and
onnxruntime-webgpu for --onnx; what is missing is left out and said so.
"""

import argparse
import statistics
import time

# Rows, inputs, outputs: the linear layers of one picture and of one label.
LINEAR = {
    "ViT-B/16-224": [(196, 768, 768), (196, 768, 3072), (196, 3072, 768), (196, 768, 2304)],
    "So400m/14-384": [(729, 1152, 1152), (729, 1152, 4304), (729, 4304, 1152), (729, 1152, 3456)],
    "a label": [(64, 768, 768), (64, 768, 3072), (64, 3072, 768)],
}
# Tokens, heads, head size.
ATTENTION = {"ViT-B/16-224": (196, 12, 64), "So400m/14-384": (729, 16, 72)}


def median(run, runs=15):
    """In seconds, after a few runs that are not counted."""
    for _ in range(3):
        run()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def torch_tables(folders):
    import torch
    from transformers import SiglipModel

    if not torch.cuda.is_available():
        return print("PyTorch sees no GPU.")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False

    def replay(run, times=1):
        """`run` recorded: what is left is the GPU's own time."""
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(times):
                run()
        return lambda: (graph.replay(), torch.cuda.synchronize())

    def row(name, operations, run, times=50):
        took = median(replay(run, times), 9) / times
        print(f"| {name} | {1e3 * took:.3f} ms | {operations / took / 1e9:.0f} |", flush=True)

    print(f"\nPyTorch {torch.__version__}, {torch.cuda.get_device_name()}, f32, recorded as a CUDA graph\n\n| | time | GFLOP/s |\n|---|---|---|")
    square = torch.randn(4096, 4096, device="cuda")
    row("4096 × 4096 × 4096", 2 * 4096**3, lambda: square @ square, 2)
    for name, layers in LINEAR.items():
        for rows, inputs, outputs in layers:
            x, weight, bias = (torch.randn(shape, device="cuda") for shape in [(rows, inputs), (outputs, inputs), (outputs,)])
            row(f"{name}: linear {inputs} → {outputs}, {rows} rows", 2 * rows * inputs * outputs, lambda: torch.nn.functional.linear(x, weight, bias))
    for name, (tokens, heads, size) in ATTENTION.items():
        q, k, v = (torch.randn(1, heads, tokens, size, device="cuda") for _ in range(3))
        row(f"{name}: attention", 4 * tokens**2 * heads * size, lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))

    print("\n| PyTorch | one after the other | with a result on the CPU | recorded |\n|---|---|---|---|")
    for folder in folders:
        model = SiglipModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval().cuda()
        vision, text = model.config.vision_config, model.config.text_config
        pictures = torch.rand(8, 3, vision.image_size, vision.image_size, device="cuda") * 2 - 1
        ids = torch.randint(2, text.vocab_size, (10, text.max_position_embeddings), device="cuda")
        with torch.inference_mode():
            for name, tower, data in [
                ("a picture", model.vision_model, pictures[:1]), ("eight pictures", model.vision_model, pictures),
                ("a label", model.text_model, ids[:1]), ("ten labels", model.text_model, ids),
            ]:
                run = lambda: tower(data).pooler_output
                cells = [lambda: (run(), torch.cuda.synchronize()), lambda: run().cpu(), replay(run)]
                print(f"| {folder}: {name} | " + " | ".join(f"{1e3 * median(cell):.2f} ms" for cell in cells) + " |", flush=True)
        del model


def onnx_table(files):
    import numpy
    import onnxruntime

    if "WebGpuExecutionProvider" not in onnxruntime.get_available_providers():
        return print(f"onnxruntime {onnxruntime.__version__} has no WebGPU provider: pip install onnxruntime-webgpu")
    print(f"\n| onnxruntime {onnxruntime.__version__}, WebGPU | first | median |\n|---|---|---|")
    for file in files:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(file, options, providers=["WebGpuExecutionProvider"])
        if session.get_providers()[0] != "WebGpuExecutionProvider":
            print(f"| {file} | no GPU | |")
            continue
        argument = session.get_inputs()[0]
        for batch in (1, 8):
            shape = [batch, *argument.shape[1:]]
            data = numpy.random.default_rng(batch)
            data = data.integers(2, 100, shape) if "int" in argument.type else data.uniform(-1, 1, shape).astype(numpy.float32)
            run = lambda: session.run(["pooler_output"], {argument.name: data})
            began = time.perf_counter()
            run()
            first = time.perf_counter() - began
            print(f"| {file}, {batch} at once | {1e3 * first:.0f} ms | {1e3 * median(run):.2f} ms |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--onnx", action="append", default=[])
    a = parser.parse_args()
    try:
        if a.model or not a.onnx:
            torch_tables(a.model)
    except ImportError as missing:
        print(f"PyTorch is left out: {missing}")
    try:
        if a.onnx:
            onnx_table(a.onnx)
    except ImportError as missing:
        print(f"onnxruntime is left out: {missing}")


if __name__ == "__main__":
    main()
