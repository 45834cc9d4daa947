/** The demo model for bundlers: importing this once makes `"demo"` work by name, for the tag too. Plain pages don't need it. */
import type { ModelFiles } from "./siglip-web.js";

export declare const demo: ModelFiles;
export default demo;
