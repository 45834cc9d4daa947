#!/usr/bin/env python3
"""Writes the smaller forms of an exported checkpoint that Transformers.js calls `q8` and `q4`, for memory.mjs --peer.

    python benches/peers/export.py --model DIR --out OUT && python tests/reference/onnx_dtypes.py OUT

As Transformers.js's own conversion does: weights as 8-bit numbers with activations quantised as they come
(`_quantized`), or as 4-bit numbers in blocks of 32 (`_q4`), embeddings in f32. Packages: those of benches/peers and onnxruntime 1.32.
"""

import sys
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer


def main():
    folder = Path(sys.argv[1]) / "onnx"
    for tower in ("vision", "text"):
        source = folder / f"{tower}_model.onnx"
        quantized, q4 = folder / f"{tower}_model_quantized.onnx", folder / f"{tower}_model_q4.onnx"
        # The patch convolution, 2.4 MB, stays f32.
        quantize_dynamic(str(source), str(quantized), weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul", "Gemm", "Gather"],
                         extra_options={"MatMulConstBOnly": True})
        quantizer = MatMulNBitsQuantizer(onnx.load(str(source)), block_size=32, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(q4), use_external_data_format=False)
        for path in (source, quantized, q4):
            kinds = sorted({node.op_type for node in onnx.load(str(path)).graph.node})
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB: {' '.join(kinds)}", flush=True)


if __name__ == "__main__":
    main()
