// The demo model for bundlers, which find files by these words alone. Plain pages need none of it: there `"demo"` is found beside siglip-web.js.
import { provideDemo } from "./client/locate.js";

/** @type {import("./siglip-web.d.ts").ModelFiles} */
export const demo = {
  name: "demo",
  files: {
    "config.json": new URL("./models/demo/config.json", import.meta.url),
    "preprocessor_config.json": new URL("./models/demo/preprocessor_config.json", import.meta.url),
    "tokenizer.json": new URL("./models/demo/tokenizer.json", import.meta.url),
    "tokenizer_config.json": new URL("./models/demo/tokenizer_config.json", import.meta.url),
    "model.safetensors": new URL("./models/demo/model.safetensors", import.meta.url),
  },
};

// From here on "demo" is this one, for the tag too.
provideDemo(demo);

export default demo;
