// What a browser or its driver can't do of the tests that all of them run: the reason, and the tests' names.

/** @type {Record<"chromium" | "firefox" | "webkit", [reason: string, names: string[]][]>} */
export const CANNOT = {
  chromium: [],
  firefox: [
    ["WebGPU is behind a switch in Firefox for Linux; with it on, the reference's logits are a test of their own", [
      "in the worker, the browser's own software adapter is passed over unless WebGPU is asked for",
      "on WebGPU, in a worker, results are the same",
      "the GPU's pipelines are made side by side while a model loads, none when it is used, and none twice",
    ]],
    ["an <img> of a drawing without a size of its own has other pixels there", ["formats that only the browser knows are decoded by it: AVIF, SVG"]],
    ["a paste that a script makes carries no files", ["a pasted picture is taken"]],
  ],
  webkit: [
    ["WebKitGTK has no WebGPU", [
      "in the worker, the browser's own software adapter is passed over unless WebGPU is asked for",
      "on WebGPU, in a worker, results are the same",
      "the GPU's pipelines are made side by side while a model loads, none when it is used, and none twice",
    ]],
    ["WebKitGTK goes on drawing the first frame of a canvas's stream", ["a video is watched: its newest frame, with the labels of the moment, until it is enough"]],
    ["WebKitGTK has no relaxed SIMD to compare with", ["without relaxed SIMD another module gives the same answers, in every dtype"]],
    ["WebKitGTK, as it is packaged, has no navigator.storage", ["a checkpoint on disk: chosen files, a chosen folder, a directory handle"]],
    ["an <img> of a drawing without a size of its own has other pixels there", ["formats that only the browser knows are decoded by it: AVIF, SVG"]],
    ["it asks twice for an <img> that may not be kept", ["an <img> is taken as it is at the call, without another request"]],
    ["WebDriver doesn't tell of workers", [
      "dispose rejects what runs, what waits and what comes later (in the worker)",
      "dispose rejects what runs, what waits and what comes later (on the main thread)",
      "loading can be aborted, before and midway, and takes its downloads along",
      "files of the library that are missing or blocked are told, in both places",
      "a page of another site imports the library and classifies in a worker",
    ]],
    ["WebDriver doesn't tell of errors and requests, and can't answer in a server's place", [
      "progress has the contract's shape, and a listener that throws stops nothing",
      "models of the Hub are asked for where they are, and what it refuses is explained",
      "an address is fetched at once, while another call runs, and not after an abort",
      "nothing is requested while classifying",
      "the demo model answers for every sample picture, without any other site",
    ]],
    ["WebDriver can't set the page's clock", ["an <img> that does not load holds nobody up, ends with its signal, and after a time says so"]],
  ],
};
