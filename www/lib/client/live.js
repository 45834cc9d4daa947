// A video's newest frame, classified again and again: none is queued, and nothing is done while nobody sees the page.
import { siglipError } from "../error.js";
import { badInput, checkFunction, checkLabels, checkOptions, checkTemplate, show, tagOf } from "./arguments.js";

/** @typedef {import("../siglip-web.d.ts").SiglipClassifier} SiglipClassifier */
/** @typedef {import("../siglip-web.d.ts").WatchOptions} WatchOptions */
/** @typedef {import("../siglip-web.d.ts").WatchLabels} WatchLabels */

const OPTIONS = ["onResult", "signal", "template", "scores", "topK"];
/** Results that the rate is told of. */
const RATE_OVER = 8;

/**
 * @param {SiglipClassifier} classifier @param {HTMLVideoElement} video
 * @param {WatchLabels} labels @param {WatchOptions} options
 * @param {(listener: Function, ...given: any[]) => void} tell
 */
export async function watch(classifier, video, labels, options, tell) {
  if (tagOf(video) !== "HTMLVideoElement") throw badInput(`The video is ${show(video)}; it must be a <video>.`);
  const { onResult, signal, template, ...settings } = checkOptions(options, OPTIONS);
  checkFunction("onResult", onResult);
  if (template !== undefined) checkTemplate(template);
  if (!onResult) throw badInput("onResult is missing: without it nobody would see the results.");
  const ask = typeof labels === "function" ? labels : () => labels;
  const ended = new AbortController();
  const end = () => ended.abort();
  signal?.addEventListener("abort", end);
  video.addEventListener("ended", end);
  if (signal?.aborted || video.ended) end();
  /** @type {{key: string, labels: any}} */
  let set = { key: "", labels: undefined };
  /** @type {number[]} */
  const times = [];
  try {
    while (!ended.signal.aborted) {
      if (!(await nextFrame(video, ended.signal))) break;
      let given = ask();
      const sentence = Array.isArray(given) ? undefined : template;
      if (Array.isArray(given)) {
        checkLabels(given);
        // Once for as long as they stay what they are.
        const key = JSON.stringify(given);
        if (key !== set.key) set = { key, labels: await classifier.embedLabels(given, { template, signal: ended.signal }) };
        given = set.labels;
      }
      const results = await classifier.classify(video, given, { ...settings, template: sentence, signal: ended.signal });
      times.push(performance.now());
      if (times.length > RATE_OVER) times.shift();
      const [first = 0, last = 0] = [times[0], times.at(-1)];
      tell(onResult, results, { framesPerSecond: times.length > 1 ? (1000 * (times.length - 1)) / (last - first) : 0, time: video.currentTime });
    }
  } catch (error) {
    const known = siglipError(error);
    if (!(ended.signal.aborted && known.code === "aborted")) throw known;
  } finally {
    signal?.removeEventListener("abort", end);
    video.removeEventListener("ended", end);
  }
}

/** Waits for a frame that wasn't there before, and for somebody who sees the page. @param {HTMLVideoElement} video @param {AbortSignal} signal @returns {Promise<boolean>} false: it ended */
async function nextFrame(video, signal) {
  for (;;) {
    await new Promise((resolve) => {
      const stop = new AbortController();
      const done = () => {
        stop.abort();
        resolve(undefined);
      };
      signal.addEventListener("abort", done, { signal: stop.signal });
      if (signal.aborted) return done();
      if (document.hidden) return document.addEventListener("visibilitychange", done, { signal: stop.signal });
      if (video.requestVideoFrameCallback) {
        const frame = video.requestVideoFrameCallback(done);
        stop.signal.addEventListener("abort", () => video.cancelVideoFrameCallback(frame));
        // WebKit doesn't call it for a stream in an element that isn't shown.
        video.addEventListener("timeupdate", done, { signal: stop.signal });
        document.addEventListener("visibilitychange", done, { signal: stop.signal });
      } else {
        requestAnimationFrame(done);
      }
    });
    if (signal.aborted) return false;
    // HAVE_CURRENT_DATA
    if (!document.hidden && video.readyState >= 2 && video.videoWidth > 0) return true;
  }
}
