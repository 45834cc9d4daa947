// Seeded faults of servers, networks, storage and people against the library with its real engine:
//   node tests/browser/faults.mjs [COUNT [FIRST]]     COUNT runs (500 unless given), the first with the seed FIRST (1)
// Each run loads a model while up to three kinds of fault happen. It must end within its limit: with the right answer, bit by bit, or with a
// typed error. Then the same model is loaded without faults, from whatever the run left in the browser: that answer must be right.
import { readFile } from "node:fs/promises";
import { realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { importLibrary, openSite } from "./harness.mjs";
import { startHub } from "./hub.mjs";

const WEIGHTS = "model.safetensors";
const SMALL = ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"];
const FILES = [...SMALL, WEIGHTS];
const LABELS = ["a cat", "a dog", "two birds"];
const CODES = ["bad-input", "bad-image", "bad-model", "network", "aborted", "unsupported", "out-of-memory", "device-lost", "disposed"];
/** What `load` is given, and what a run may take in all on a busy machine. Milliseconds. */
const [TIMEOUT, LIMIT] = [20_000, 180_000];
/** Tries come to an end soon, and after one another. */
const POLICY = { hurry: true, stall: 1000, tries: 4 };

/** Numbers that are the same in every run. */
export function generator(seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 8; i++) next();
  const below = (n) => Math.floor(next() * n);
  return { next, below, one: (list) => list[below(list.length)] };
}

/** `give(request)` for some requests: those of one file, from the so-manieth on, so many times. */
function some(random, give, { files = FILES, times = [1, 2, 3, Infinity] } = {}) {
  const file = random.one(files);
  let [skip, left] = [random.below(3), random.one(times)];
  return (request) => {
    if (request.file !== file || request.where === "api" || skip-- > 0 || left-- <= 0) return undefined;
    return give(request);
  };
}

/** A byte of what a request asks for. */
const inside = (random, { start, end }, size) => start + random.below(Math.max(1, Math.min(end, size) - start));

/**
 * The kinds of fault. `fault(random, run)` gives what a mock Hub's `fault` does; `before(random, run)` and `during(random, run)` do something to the browser.
 * `hub`: only the Hub, which tells sums, can be expected to see through it. `version`: what tells versions apart is itself at fault.
 */
export const KINDS = {
  "connection reset": { fault: (random) => some(random, () => ({ reset: true })) },
  "connection cut midway": { fault: (random, { size }) => some(random, (request) => ({ cut: inside(random, request, size(request.file)) })) },
  "nothing more midway": { fault: (random, { size }) => some(random, (request) => ({ stall: inside(random, request, size(request.file)) })) },
  "no answer": { fault: (random) => some(random, () => ({ silent: true })) },
  "a byte at a time": { fault: (random) => some(random, () => ({ drip: 30 })) },
  "HTTP 500": { fault: (random) => some(random, () => ({ status: 500 })) },
  "HTTP 503": { fault: (random) => some(random, () => ({ status: 503 })) },
  "HTTP 429, asking for time": { fault: (random) => some(random, () => ({ status: 429, headers: { "Retry-After": String(random.one([0, 7, 300, 4000])) } })) },
  "HTTP 503 without CORS": { fault: (random) => some(random, () => ({ status: 503, closed: true })) },
  "no CORS": { fault: (random) => some(random, () => ({ closed: true })) },
  "HTTP 401": { fault: (random) => some(random, () => ({ status: 401 })) },
  "HTTP 403": { fault: (random) => some(random, () => ({ status: 403 })) },
  "HTTP 404": { fault: (random) => some(random, () => ({ status: 404 })) },
  "a web page instead": { fault: (random) => some(random, () => ({ html: true })) },
  "an error in JSON instead": { fault: (random) => some(random, () => ({ body: '{"error": "Internal error"}' })) },
  "no bytes at all": { fault: (random) => some(random, () => ({ empty: true })) },
  "bytes without end": { fault: (random) => some(random, () => ({ endless: true })) },
  "ranges ignored": { fault: (random) => some(random, () => ({ noRange: true }), { files: [WEIGHTS] }) },
  "another range": { fault: (random) => some(random, () => ({ shift: 1 + random.below(1000) }), { files: [WEIGHTS] }) },
  "more bytes than asked": { fault: (random) => some(random, () => ({ extra: 1 + random.below(5000) })) },
  "fewer bytes than asked": { fault: (random) => some(random, () => ({ short: 1 + random.below(5000) }), { files: [WEIGHTS] }) },
  "no length": { fault: (random) => some(random, () => ({ chunked: true })) },
  "says gzip and isn't": { fault: (random) => some(random, () => ({ garbled: true })) },
  "a redirect to nowhere": { fault: (random) => some(random, () => ({ location: "http://127.0.0.1:9/" })) },
  "a bit flipped on the way": { hub: true, fault: (random, { size }) => some(random, ({ file }) => ({ flip: random.below(8 * size(file)) })) },
  "the file replaced midway": {
    folder: true,
    fault: (random, run) => some(random, () => (run.update(), undefined), { files: [WEIGHTS], times: [1] }),
  },
  "the model updated since it was kept": { before: (_, run) => run.kept && run.update() },
  "another ETag from each server": { version: true, fault: (random) => some(random, () => ({ etag: `"${random.below(1e9)}"` })) },
  "weak ETags": { fault: (random, { etag }) => some(random, ({ file }) => ({ etag: `W/${etag(file)}` }), { times: [Infinity] }) },
  "no ETag": { version: true, fault: (random) => some(random, () => ({ etag: null }), { times: [Infinity] }) },
  "HEAD refused": { fault: (random) => { const status = random.one([404, 405, 501]); return ({ method }) => (method === "HEAD" ? { status } : undefined); } },
  "the Hub's list broken": { fault: (random) => { const how = random.one([{ status: 500 }, { html: true }, { reset: true }]); return ({ where }) => (where === "api" ? how : undefined); } },
  "signed addresses run out": { fault: (random, { hub }) => some(random, () => (hub.expire(), undefined), { files: [WEIGHTS] }) },
  "an entry with a bit flipped": { before: (random, { damage }) => damage("flip", random) },
  "an entry gone": { before: (random, { damage }) => damage("remove", random) },
  "an entry cut short": { before: (random, { damage }) => damage("cut", random) },
  "the site's data cleared midway": { during: (random, { clearData }) => clearData(random.below(400)) },
  "the disk full": { before: (random, { fill }) => fill(random.below(1_200_000)) },
  "given up by the caller": { during: (random, { abort }) => abort(random.below(500)) },
  "the tab closed midway": { during: (random, { close }) => close(random.below(500)) },
};

/** Damages an entry of what is kept, on the page. @param {{how: string, which: number, at: number}} given */
async function damageEntry({ how, which, at }) {
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web", { create: true });
  const entries = [];
  for await (const folder of root.values()) for await (const name of folder.keys()) entries.push([folder, name]);
  if (entries.length === 0) return;
  const [folder, name] = entries.sort(([, a], [, b]) => (a < b ? -1 : 1))[Math.floor(which * entries.length)];
  if (how === "remove") return folder.removeEntry(name);
  const handle = await folder.getFileHandle(name);
  let bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
  if (how === "cut") bytes = bytes.slice(0, Math.floor(at * bytes.length));
  else bytes[Math.floor(at * bytes.length)] ^= 1 << Math.floor(8 * ((at * 1000) % 1));
  const writable = await handle.createWritable();
  await writable.write(bytes);
  await writable.close();
}

/** A server and a browser for runs. `t` has `after`. */
export async function openBench(t) {
  const site = await openSite(t);
  const original = Object.fromEntries(await Promise.all(FILES.map(async (file) => [file, await readFile(new URL(`../fixtures/model/tiny/${file}`, import.meta.url))])));
  const hub = await startHub(t, original);
  let page;
  const open = async () => {
    page = await importLibrary(await site.page(), site.library);
    await page.evaluate((labels) => {
      window.answer = (source, options, policy) => outcome(async () => {
        window.stop = new AbortController();
        const quick = { [Symbol.for("siglip-web.retryPolicy")]: policy };
        const classifier = await SiglipClassifier.load(source, { backend: "cpu", signal: window.stop.signal, ...quick, ...options });
        const picture = new ImageData(new Uint8ClampedArray(4 * 20 * 20).map((_, i) => (i * 37) % 256), 20, 20);
        const scores = await classifier.classify(picture, labels);
        const texts = await classifier.embedText(labels);
        await classifier.dispose();
        return JSON.stringify([scores.map(({ label, logit }) => [label, logit]), texts.map((text) => [...text])]);
      });
    }, LABELS);
  };
  await open();

  // Of the same size and header, as trained a little longer.
  const header = 8 + Number(original[WEIGHTS].readBigUInt64LE(0));
  const newer = Buffer.from(original[WEIGHTS]);
  for (let at = header; at + 1 < newer.length; at += 4) newer[at + 1] ^= 0x10;
  const answer = (source, options, policy = { hurry: true }) => page.evaluate(([source, options, policy]) => answer(source, options, policy), [source, options, policy]);
  const expected = {};
  for (const dtype of ["f32", "q8"]) {
    expected[dtype] = {};
    for (const [version, weights] of [["older", original[WEIGHTS]], ["newer", newer]]) {
      hub.files = { ...original, [WEIGHTS]: weights };
      const { value, message } = await answer(hub.model, { dtype, cache: false });
      if (!value) throw new Error(`without faults: ${message}`);
      expected[dtype][version] = value;
    }
  }

  /**
   * One run. @param {number} seed @param {string[]} [chosen] kinds of fault; some unless given
   * @returns {Promise<{seed: number, kinds: string[], ended: string, problem?: string}>} ended: "right" or a code
   */
  async function run(seed, chosen) {
    const random = generator(seed);
    hub.reset();
    hub.files = { ...original };
    hub.commit = "1".repeat(40);
    hub.expire();
    await page.evaluate(() => SiglipClassifier.clearCache());
    const source = random.one([hub.model, hub.folder]);
    const atHub = source === hub.model;
    const options = { dtype: random.one(["f32", "q8"]), cache: random.below(3) > 0 };
    const doing = [];
    const session = await site.context.newCDPSession(page);
    const later = (time, work) => {
      let timer;
      doing.push({ end: () => clearTimeout(timer), begin: () => { timer = setTimeout(() => Promise.resolve(work()).catch(() => {}), time); } });
    };
    const state = {
      hub,
      kept: options.cache && random.below(2) > 0,
      closed: false,
      versions: ["older"],
      size: (file) => hub.files[file].length,
      etag: (file) => hub.etag(file, atHub && file === WEIGHTS),
      update() {
        hub.files = { ...original, [WEIGHTS]: newer };
        hub.commit = "2".repeat(40);
        state.versions.push("newer");
      },
      damage: (how, random) => page.evaluate(damageEntry, { how, which: random.next(), at: random.next() }),
      async fill(room) {
        const { usage } = await page.evaluate(() => navigator.storage.estimate());
        await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin, quotaSize: usage + room });
      },
      clearData: (time) => later(time, () => session.send("Storage.clearDataForOrigin", { origin: site.origin, storageTypes: "file_systems,cache_storage" })),
      abort: (time) => later(time, () => page.evaluate(() => window.stop?.abort())),
      close: (time) => later(time, () => { state.closed = true; return page.close(); }),
    };
    if (state.kept) await answer(source, options);

    const possible = Object.keys(KINDS).filter((name) => !(KINDS[name].hub && !atHub) && !(KINDS[name].folder && atHub));
    const kinds = chosen ?? Array.from({ length: 1 + random.below(3) }, () => random.one(possible));
    // Of a folder whose server doesn't tell its versions truly nobody can say when it changed.
    const untold = !atHub && kinds.some((name) => KINDS[name].version);
    const used = [...new Set(kinds)].filter((name) => !(untold && /replaced|updated/.test(name)));
    const faults = [];
    for (const name of used) {
      const { fault, before, during } = KINDS[name];
      await before?.(random, state);
      during?.(random, state);
      if (fault) faults.push(fault(random, state));
    }
    hub.fault = (request) => Object.assign({}, ...faults.map((fault) => fault(request)));

    const result = { seed, kinds: used, source: atHub ? "hub" : "folder", ...options, kept: state.kept };
    const late = Symbol("late");
    const within = async (work) => {
      let timer;
      const limit = new Promise((resolve) => { timer = setTimeout(resolve, LIMIT, late); });
      try {
        return await Promise.race([work, limit]);
      } finally {
        clearTimeout(timer);
      }
    };
    const judge = (outcome, versions) => {
      if (outcome === late) return { ended: "never", problem: `did not end within ${LIMIT / 1000} s` };
      if (outcome.value !== undefined) {
        const right = versions.some((version) => expected[options.dtype][version] === outcome.value);
        return right ? { ended: "right" } : { ended: "wrong", problem: "a wrong answer" };
      }
      const typed = outcome.ours && CODES.includes(outcome.code) && outcome.message.length > 20;
      return typed ? { ended: outcome.code, message: outcome.message } : { ended: "untyped", problem: `an error of no kind: ${JSON.stringify(outcome)}` };
    };
    doing.forEach(({ begin }) => begin());
    const outcome = await within(answer(source, { ...options, timeout: TIMEOUT }, POLICY).catch((error) => {
      if (!state.closed) throw error;
      return { ours: true, code: "aborted", message: "the tab was closed in the meantime" };
    }));
    doing.forEach(({ end }) => end());
    Object.assign(result, judge(outcome, state.versions));
    if (state.closed || page.isClosed()) await open();
    hub.reset();
    hub.expire();
    const clean = await site.context.newCDPSession(page);
    await clean.send("Storage.overrideQuotaForOrigin", { origin: site.origin });
    if (!result.problem) {
      // A whole model of the Hub isn't asked about; another one must be the server's.
      const newest = state.versions.at(-1);
      // What the weights compute, not what was computed before.
      const after = judge(await within(answer(source, { ...options, keepLabels: false })), atHub ? state.versions : [newest]);
      if (after.ended !== "right") result.problem = `afterwards, without faults: ${after.problem ?? `${after.ended}: ${after.message}`}`;
    }
    if (result.ended === "never") {
      await page.close();
      await open();
    }
    return result;
  }
  return { run };
}

async function main([count = "500", first = "1"]) {
  const closing = [];
  const bench = await openBench({ after: (close) => closing.push(close) });
  const table = new Map(Object.keys(KINDS).map((name) => [name, { right: 0, error: 0, problem: 0 }]));
  let problems = 0;
  try {
    for (let seed = Number(first); seed < Number(first) + Number(count); seed++) {
      const result = await bench.run(seed);
      process.stderr.write(result.problem ? "!" : ".");
      for (const kind of result.kinds) table.get(kind)[result.problem ? "problem" : result.ended === "right" ? "right" : "error"] += 1;
      if (result.problem) {
        problems += 1;
        console.log(JSON.stringify(result));
      }
    }
  } finally {
    for (const close of closing.reverse()) await close();
  }
  console.log("| Fault | runs | right all the same | a typed error | neither |\n|---|---|---|---|---|");
  for (const [kind, { right, error, problem }] of table) console.log(`| ${kind} | ${right + error + problem} | ${right} | ${error} | ${problem} |`);
  console.log(`${count} runs of ${table.size} kinds of fault, ${problems} with a problem`);
  process.exitCode = problems > 0 ? 1 : 0;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));
