// The package as npm would give it: put together, packed, and unpacked into node_modules beside what the tests install.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));
const here = fileURLToPath(new URL("./", import.meta.url));
/** Where everything goes that these tests make. */
export const cache = join(here, "node_modules", ".cache");
export const library = join(here, "node_modules", "siglip-web");
export const tarball = join(cache, "siglip-web.tgz");

/** Packs the working tree. */
function pack() {
  const folder = join(cache, "package");
  mkdirSync(cache, { recursive: true });
  execFileSync(process.execPath, [join(root, "tools", "package.mjs"), root, folder], { stdio: "inherit" });
  const { name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  execFileSync("npm", ["pack", "--silent", "--pack-destination", cache], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  renameSync(join(cache, `${name}-${version}.tgz`), tarball);
  rmSync(folder, { recursive: true });
}

/** Puts the packed package into a project's node_modules. @param {string} project */
export function unpack(project) {
  const folder = join(project, "node_modules", "siglip-web");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "--strip-components=1", "-C", folder]);
}

// Whoever runs several files of tests does it once for all of them.
if (!process.env.SIGLIP_WEB_PACKED || !existsSync(tarball)) {
  if (!existsSync(join(here, "node_modules", "vite"))) throw new Error("tests/places/node_modules is missing: type (cd tests/places && npm ci --ignore-scripts)");
  pack();
  unpack(here);
}
