// How long a first visitor waits: from opening the page to the first answer of the demo model, each time in a browser that has nothing of it.
//   node opening.mjs [--rounds N] [--latency MS] [--rate MBIT] [WWW…]    after ./build.sh; as from a server that is so far away; WWW: other builds' www/ folders
// Prints a row of a table for each build, which take turns: minimum (median) in ms, the requests, and the ratio of the last build's minimum to each.
import net from "node:net";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { launch, leastAndMedian, www } from "./harness.mjs";
import { offline, serve } from "../../tools/serve.mjs";

const { values, positionals } = parseArgs({
  options: { rounds: { type: "string", default: "7" }, latency: { type: "string", default: "0" }, rate: { type: "string", default: "0" } },
  allowPositionals: true,
});
const [rounds, latency, rate] = [values.rounds, values.latency, values.rate].map(Number);
if (!(rounds > 0 && latency >= 0 && rate >= 0)) throw new Error("usage: node opening.mjs [--rounds N] [--latency MS] [--rate MBIT] [WWW…]");

/** Milliseconds from one turn of the line to the next. */
const TURN = 4;

/** A line to a server: what is asked comes `latency` later, and all answers share the rate. @param {number} port */
async function line(port) {
  /** What each connection still gets. @type {Map<net.Socket, Buffer[]>} */
  const waiting = new Map();
  const send = () => {
    let left = rate > 0 ? (rate * 1e6 * TURN) / 8000 : Infinity;
    while (left > 0 && waiting.size > 0) {
      const [client, [bytes, ...rest]] = waiting.entries().next().value;
      const part = bytes.subarray(0, Math.min(left, 1 << 14));
      left -= part.length;
      client.write(part);
      const more = part.length < bytes.length ? [bytes.subarray(part.length), ...rest] : rest;
      // The others first.
      waiting.delete(client);
      if (more.length > 0) waiting.set(client, more);
    }
  };
  const timer = setInterval(send, TURN);
  const server = net.createServer({ noDelay: true }, (client) => {
    const home = net.connect({ port, host: "127.0.0.1", noDelay: true });
    client.on("data", (bytes) => setTimeout(() => home.write(bytes), latency));
    home.on("data", (bytes) => waiting.set(client, [...(waiting.get(client) ?? []), bytes]));
    const end = () => {
      waiting.delete(client);
      client.destroy();
      home.destroy();
    };
    for (const socket of [client, home]) socket.on("close", end).on("error", end);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => (clearInterval(timer), server.close()) };
}

/** One visit, in ms. @param {string} url */
async function visit(url) {
  const browser = await launch({ serviceWorkers: "allow" });
  const page = await browser.newPage();
  page.setDefaultTimeout(0);
  // The browser has started by then.
  await page.evaluate(() => new Promise((done) => setTimeout(done, 1000)));
  await page.goto(url, { waitUntil: "commit" });
  const time = await page.evaluate(() => new Promise((done) => {
    const look = () => {
      if (/\d\s?%/.test(document.querySelector("#results")?.textContent ?? "")) done(performance.now());
      else setTimeout(look, 4);
    };
    look();
  }));
  await browser.close();
  return time;
}

const sites = await Promise.all([...positionals, www].map(async (root) => {
  const files = await serve(resolve(root), { handle: (request, response) => offline(root, request, response) });
  return { root, files, line: await line(Number(new URL(files.url).port)), times: /** @type {number[]} */ ([]), requests: 0 };
}));
for (let round = 0; round < rounds; round++) {
  for (const site of sites) {
    site.files.requests.length = 0;
    site.times.push(await visit(site.line.url));
    site.requests = site.files.requests.length;
  }
}
console.log("| build | first answer, ms | requests | ratio |\n|---|---|---|---|");
const last = Math.min(...sites[sites.length - 1].times);
for (const { root, times, requests } of sites) {
  console.log(`| ${root} | ${leastAndMedian(times)} | ${requests} | ${(last / Math.min(...times)).toFixed(2)} |`);
}
for (const { files, line } of sites) {
  line.close();
  await files.close();
}
process.exit(0);
