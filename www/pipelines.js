// Makes a GPU's pipelines before they are needed, side by side. The runtime under the library asks for each when its kernel first runs and
// waits for it; it is given what is here.

const ENTRY = "main";

/** @typedef {{begun: Map<string, Promise<void>>, modules: Map<string, any>, pipelines: Map<any, any>, prepare: (text: string) => Promise<void>}} Made */
/** What was made for each device. @type {WeakMap<object, Made>} */
const made = new WeakMap();

export const pipelines = {
  /**
   * Ends when the pipelines of all `texts` (WGSL) are there or have failed. What failed the runtime tries again, and reports.
   * @param {any} device the runtime's own GPUDevice @param {string[]} texts
   */
  async prepare(device, texts) {
    if (!made.has(device)) made.set(device, take(device));
    const { begun, prepare } = /** @type {Made} */ (made.get(device));
    for (const text of texts) if (!begun.has(text)) begun.set(text, prepare(text));
    await Promise.allSettled(texts.map((text) => begun.get(text)));
  },
};

/** Answers for the device where something was made beforehand. @param {any} device @returns {Made} */
function take(device) {
  const modules = new Map();
  const pipelines = new Map();
  const createShaderModule = device.createShaderModule.bind(device);
  const createComputePipeline = device.createComputePipeline.bind(device);
  device.createShaderModule = (descriptor) => modules.get(descriptor.code) ?? createShaderModule(descriptor);
  device.createComputePipeline = (descriptor) => {
    const { layout, compute: { module, entryPoint } } = descriptor;
    return (layout === "auto" && entryPoint === ENTRY && pipelines.get(module)) || createComputePipeline(descriptor);
  };
  const prepare = async (text) => {
    const module = createShaderModule({ code: text });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: ENTRY } });
    modules.set(text, module);
    pipelines.set(module, pipeline);
  };
  return { begun: new Map(), modules, pipelines, prepare };
}
