// Makes a GPU's pipelines before they are needed, side by side. The runtime under the library asks for each when its kernel first runs and
// waits for it; it is given what is here.

const ENTRY = "main";

/** What makes the pipeline of a text, once, for each device. @type {WeakMap<object, (text: string) => Promise<void>>} */
const makers = new WeakMap();

export const pipelines = {
  /**
   * Ends when the pipelines of all `texts` (WGSL) are there or have failed. What failed the runtime tries again, and reports.
   * @param {any} device the runtime's own GPUDevice @param {string[]} texts
   */
  async prepare(device, texts) {
    const make = makers.get(device) ?? maker(device);
    makers.set(device, make);
    await Promise.allSettled(texts.map(make));
  },
};

/** Answers for the device where something was made beforehand. @param {any} device @returns {(text: string) => Promise<void>} */
function maker(device) {
  const begun = new Map();
  const modules = new Map();
  const pipelines = new Map();
  const createShaderModule = device.createShaderModule.bind(device);
  const createComputePipeline = device.createComputePipeline.bind(device);
  device.createShaderModule = (/** @type {GPUShaderModuleDescriptor} */ descriptor) => modules.get(descriptor.code) ?? createShaderModule(descriptor);
  device.createComputePipeline = (/** @type {GPUComputePipelineDescriptor} */ descriptor) => {
    const { layout, compute: { module, entryPoint } } = descriptor;
    return (layout === "auto" && entryPoint === ENTRY && pipelines.get(module)) || createComputePipeline(descriptor);
  };
  const make = async (/** @type {string} */ text) => {
    const module = createShaderModule({ code: text });
    const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: ENTRY } });
    modules.set(text, module);
    pipelines.set(module, pipeline);
  };
  return (text) => {
    if (!begun.has(text)) begun.set(text, make(text));
    return begun.get(text);
  };
}
