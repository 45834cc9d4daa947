// One thread beside the engine's own: see threads.js. Started by the caller's thread, which hands it the engine's port. Once it runs it hears no
// more messages.
import { port as caller } from "../platform.js";
import { GLUE } from "./glue.js";

/** @param {MessageEvent<MessagePort>} event */
caller.onmessage = ({ data: port }) => {
  /** @param {MessageEvent<{name: import("./glue.js").ModuleName, module: WebAssembly.Module, memory: WebAssembly.Memory}>} event */
  port.onmessage = async ({ data: { name, module, memory } }) => {
    try {
      const glue = (await GLUE[name]()).create();
      await glue({ module_or_path: module, memory });
      port.onmessage = () => {
        try {
          glue.runThread();
        } catch (error) {
          caller.postMessage(error.message);
        }
      };
      port.postMessage("ready");
    } catch (error) {
      port.postMessage(error.message);
    }
  };
};
caller.postMessage("here");
