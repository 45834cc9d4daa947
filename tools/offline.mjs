// The list of the page's own files with their hashes, for its service worker. The list is what makes a version: the browser compares it
// byte by byte, so that a page that has changed is fetched anew.
//   node offline.mjs WWW     writes WWW/offline.js, for a site that is served by others; ./build.sh serve answers with it as it is asked
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync, realpathSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** What only developers and hosts read, what the worker itself is made of, and a site's own model, which the library keeps. */
const LEFT_OUT = /(^models\/.*|^CNAME|\.d\.ts|\.md|\.model|^service-worker\.js|^offline\.js|(^|\/)\..*|^samples\/page\.png)$/;
/** Fetched when a browser first wants them: each takes one of these. */
const LATER = /^lib\/pkg\//;
/** Where a site's pages have their scripts (tools/bundle.mjs): as deep in lib/ as the library's own modules, of which some say by their own address where
 * others are. */
export const BUNDLE = "lib/bundle";
/** What is left for pages of others then. */
const LIBRARY = /^lib\/(?!bundle\/).*\.js$/;

/** A path from one place to another, as addresses have it. @param {string} from @param {string} to */
export const address = (from, to) => relative(from, to).split(sep).join("/");

/** The text of offline.js for the folder `www`. @param {string} www */
export function offlineList(www) {
  const files = [];
  const bundled = existsSync(join(www, BUNDLE));
  for (const entry of readdirSync(www, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const name = address(www, path);
    if (!entry.isFile() || LEFT_OUT.test(name)) continue;
    const hash = createHash("sha256").update(readFileSync(path)).digest("base64");
    files.push(`  ${JSON.stringify(name)}: [${JSON.stringify(`sha256-${hash}`)}, ${LATER.test(name) || (bundled && LIBRARY.test(name)) ? "LATER" : "AT_ONCE"}],`);
  }
  const list = files.sort().join("\n");
  const version = createHash("sha256").update(list).digest("hex").slice(0, 16);
  return `// Written by tools/offline.mjs: the page's files, and when its service worker keeps them.
const AT_ONCE = true;
const LATER = false;
self.VERSION = ${JSON.stringify(version)};
self.FILES = {
${list}
};
`;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [www] = process.argv.slice(2);
  writeFileSync(join(www, "offline.js"), offlineList(www));
}
