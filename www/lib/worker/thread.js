// One thread beside the worker's own: see threads.js. Once it runs it hears no more messages.
// @ts-ignore: made by the build
import init, { runThread } from "../pkg/siglip_web_cpu_threads.js";

self.onmessage = async ({ data: { module, memory, watcher } }) => {
  self.onmessage = () => {
    try {
      runThread();
    } catch (error) {
      watcher.postMessage(error.message);
    }
  };
  try {
    await init({ module_or_path: module, memory });
    self.postMessage("ready");
  } catch (error) {
    self.postMessage(error.message);
  }
};
