// What a browser or its driver can't do of the tests that all of them run: the reason, and the tests' names.

/** @type {Record<"chromium" | "firefox" | "webkit", [reason: string, names: string[]][]>} */
export const CANNOT = {
  chromium: [],
  firefox: [
    ["WebGPU is behind a switch in Firefox for Linux; with it on, the reference's logits are a test of their own", [
      "in the worker, the browser's own software adapter is passed over unless WebGPU is asked for",
      "on WebGPU, in a worker, results are the same",
      "the GPU's pipelines are made side by side while a model loads, none when it is used, and none twice",
      "whose largest matrix this device’s GPU can’t hold in a buffer are refused by name, and nothing is fetched",
    ]],
    ["its driver puts no folder into an <input>", [
      "from a folder on this computer",
      "of 200 pictures: looked at, listed, sorted, saved; only what is in sight is there",
      "without handles they are told apart by what they hold, though some of it has changed",
    ]],
    ["only Chromium's driver drops files", ["by dropping a folder, or its files", "by dropping it; a dropped picture finds more like it"]],
  ],
  webkit: [
    ["WebKitGTK has no WebGPU", [
      "in the worker, the browser's own software adapter is passed over unless WebGPU is asked for",
      "on WebGPU, in a worker, results are the same",
      "the GPU's pipelines are made side by side while a model loads, none when it is used, and none twice",
    ]],
    ["WebKitGTK goes on drawing the first frame of a canvas's stream", ["a video is watched: its newest frame, with the labels of the moment, until it is enough"]],
    ["WebKitGTK has no relaxed SIMD to compare with", ["without relaxed SIMD another module gives the same answers, in every dtype"]],
    ["WebKitGTK, as it is packaged, has no navigator.storage", [
      "a checkpoint on disk: chosen files, a chosen folder, a directory handle",
      "an index is kept: the next visit finds it, embeds nothing again, and lists it until it is deleted",
      "closed at any moment, an index goes on where it was",
      "a bit that flips anywhere is found, and only what it damaged is embedded again",
      "two tabs: one at a time adds, and the other one sees it",
      "an index of another model is refused with what to do, and again: true begins anew",
      "where storage is refused or full, the index stays in memory and says so",
    ]],
    ["WebDriver doesn't tell of workers", [
      "dispose rejects what runs, what waits and what comes later (in the worker)",
      "dispose rejects what runs, what waits and what comes later (on the main thread)",
      "dispose ends a fresh start that is under way, and its worker",
      "loading can be aborted, before and midway, and takes its downloads along",
      "files of the library that are missing or blocked are told, in both places",
      "a page of another site imports the library and classifies in a worker",
    ]],
    ["WebDriver doesn't tell of errors and requests, and can't answer in a server's place", [
      "what was asked for ahead is let go of without a word when a load is aborted",
      "progress has the contract's shape, and a listener that throws stops nothing",
      "models of the Hub are asked for where they are, and what it refuses is explained",
      "an address is fetched at once, while another call runs, and not after an abort",
      "nothing is requested while classifying",
      "the demo model answers for every sample picture, without any other site",
    ]],
    ["WebDriver can't set the page's clock", ["an <img> that does not load holds nobody up, ends with its signal, and after a time says so"]],
  ],
};
