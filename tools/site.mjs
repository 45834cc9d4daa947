// A complete static site: node site.mjs WWW OUT [FOLDER TITLE] (./build.sh site). It is the page with its library; with FOLDER, a checkpoint under OUT,
// the page opens with that model. Without it, WWW is copied, its pages' scripts in few files; a second call names the model and lists the files for the page's service worker.
// node site.mjs --check WWW OUT [FILE...] only says whether OUT may be emptied and written: neither WWW nor a FILE that the site is made from may lie in it.
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, realpathSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { bundle } from "./bundle.mjs";
import { address, offlineList } from "./offline.mjs";

/** The largest file that free static hosts take. */
const LARGEST = 95e6;

const given = process.argv.slice(2);
const checking = given[0] === "--check";
const [www, out, folder, title] = checking ? given.slice(1) : given;

/** What a site is known by: no other folder is replaced. */
const isSite = () => ["index.html", "lib/siglip-web.js"].every((file) => existsSync(join(out, file)));

/** What belongs to the place where a site is published, as a clone of GitHub Pages' branch: .git, .nojekyll, CNAME. */
const STAYS = /^(\..*|CNAME)$/;

/** Where a path leads, whatever links there are on the way, and whether or not it is there. @returns {string} */
function real(/** @type {string} */ path) {
  if (existsSync(path)) return realpathSync.native(path);
  const whole = resolve(path);
  return join(real(dirname(whole)), basename(whole));
}

/** Whether `path` is `within` or lies in it. */
function lies(/** @type {string} */ path, /** @type {string} */ within) {
  const way = relative(real(within), real(path));
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

/** Nothing that the site is made from is deleted. */
function spare(/** @type {string[]} */ files) {
  if (lies(out, www) || lies(www, out)) fail(`${out} is the folder that the site is copied from, or one of the two lies in the other: give a folder elsewhere`);
  const lost = files.find((file) => lies(file, out));
  if (lost) fail(`${lost} lies in ${out}, which is emptied before the site is written: move it elsewhere, or give another folder for the site`);
}

function copy() {
  const there = !existsSync(out) ? [] : statSync(out).isDirectory() ? readdirSync(out).filter((name) => !STAYS.test(name)) : undefined;
  if (!there || (there.length > 0 && !isSite())) {
    fail(`${out} is there already and is no site of this page: give a folder that is empty or new`);
  }
  for (const name of there) rmSync(join(out, name), { recursive: true });
  mkdirSync(out, { recursive: true });
  // What only developers and the README look at.
  const left = /(\.d\.ts|\.md|\.model|samples\/page\.png|\/\.[^/]*)$/;
  cpSync(www, out, { recursive: true, filter: (path) => !left.test(path) });
}

function nameModel() {
  const quoted = (/** @type {string} */ value) => value.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;");
  const tag = `<meta name="siglip-model" content="${quoted(`${folder}/`)}" data-title="${quoted(title)}">`;
  for (const page of ["index.html", "search.html", "speed.html"].map((name) => join(out, name)).filter((path) => existsSync(path))) {
    writeFileSync(page, readFileSync(page, "utf8").replace("</head>", () => `${tag}\n</head>`));
  }
}

function check() {
  for (const entry of readdirSync(out, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    if (entry.isFile() && !STAYS.test(address(out, path).split("/")[0]) && statSync(path).size >= LARGEST) {
      fail(`${relative(out, path)} has ${(statSync(path).size / 1e6).toFixed(0)} MB, and free static hosts take ${LARGEST / 1e6} at most: take --dtype q4, or --labels, which needs no token table`);
    }
  }
}

function fail(/** @type {string} */ message) {
  console.error(`site: ${message}`);
  process.exit(1);
}

if (checking) {
  spare(given.slice(3));
  process.exit();
}
if (folder === undefined) {
  spare([]);
  copy();
  await bundle(out);
} else nameModel();
check();
writeFileSync(join(out, "offline.js"), offlineList(out));
