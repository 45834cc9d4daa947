// Static files over HTTP for `./build.sh serve` and the browser tests:
//   node serve.mjs FOLDER [PORT [COMMAND]]   serves until it is stopped, cross-origin isolated; port 0 takes a free one; the command runs meanwhile
//   node serve.mjs --check PORT              only says whether the port is free
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import send from "send";
import { offlineList } from "./offline.mjs";

const HOST = "127.0.0.1";

/** What makes a page cross-origin isolated: with these headers on its files browsers let workers share memory. */
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/** Answers one request from the files under `root`; ranges, HEAD and MIME types are `send`'s. */
export function sendFile(root, request, response) {
  response.setHeader("Access-Control-Allow-Origin", "*");
  response.setHeader("Access-Control-Expose-Headers", "Content-Length, Content-Range, ETag");
  response.setHeader("Cross-Origin-Resource-Policy", "cross-origin");
  response.setHeader("Cache-Control", "no-store");
  response.setHeader("X-Content-Type-Options", "nosniff");
  if (request.method === "OPTIONS") {
    response.setHeader("Access-Control-Allow-Methods", "GET, HEAD");
    response.setHeader("Access-Control-Allow-Headers", "*");
    response.writeHead(204).end();
    return;
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("Allow", "GET, HEAD, OPTIONS");
    fail(response, 405, "only GET and HEAD are answered here");
    return;
  }
  const path = request.url.replace(/[?#].*$/s, "");
  send(request, path, { root, cacheControl: false, dotfiles: "ignore" })
    .on("headers", (answer, file) => {
      // No other site may lay a page of its own over ours. A page can't ask for this in its own text.
      if (file.endsWith(".html")) answer.setHeader("Content-Security-Policy", "frame-ancestors 'none'");
    })
    .on("error", (error) => fail(response, error.status ?? 500, error.message))
    .pipe(response);
}

function fail(response, status, message) {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8" }).end(`${status} ${message}\n`);
}

/**
 * Serves the folder `root` on 127.0.0.1. `handle(request, response)` may answer a request itself by returning true
 * (a test's slow or broken file). `isolated`: its pages are cross-origin isolated. Rejects with Node's `EADDRINUSE` error when the port is taken.
 * @returns {Promise<{url: string, port: number, requests: string[], close(): Promise<void>}>} requests: "GET /path" in order
 */
export function serve(root, { port = 0, handle, isolated = false } = {}) {
  const folder = realpathSync(root);
  const requests = [];
  const server = createServer(async (request, response) => {
    requests.push(`${request.method} ${request.url}`);
    if (isolated) response.setHeaders(new Map(Object.entries(ISOLATED)));
    try {
      if (!(await handle?.(request, response))) sendFile(folder, request, response);
    } catch (error) {
      fail(response, 500, String(error));
    }
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, HOST, () => {
      const { port: bound } = server.address();
      resolve({
        url: `http://${HOST}:${bound}/`,
        port: bound,
        requests,
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            server.closeAllConnections();
          }),
      });
    });
  });
}

/** Runs what builds the rest of the files. It ends with this program, and with it all that it started. */
function runMeanwhile(command) {
  const child = spawn(command, { detached: true, stdio: ["ignore", "inherit", "inherit"] });
  child.on("error", (error) => console.error(`serve: ${command} could not be started (${error.message}): what it builds is missing`));
  child.on("exit", (status) => {
    if (status === 0) console.log("Everything is built; reload the page to use it.");
    else if (status !== null) console.error(`serve: ${command} failed (see above): the page goes on with what is there`);
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.once(signal, () => {
      if (child.pid && child.exitCode === null && child.signalCode === null) process.kill(-child.pid, "SIGTERM");
      process.kill(process.pid, signal);
    });
  }
}

/** Answers with the list for the page's service worker, as the files are now. @returns {boolean} whether that was asked for */
export function offline(root, { url }, response) {
  if (url !== "/offline.js") return false;
  response.writeHead(200, { "Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "no-store" }).end(offlineList(root));
  return true;
}

async function main([first, second, command]) {
  const check = first === "--check";
  const port = Number(second ?? 8080);
  try {
    const server = await serve(check ? "." : first, { port, isolated: true, handle: (request, response) => offline(first, request, response) });
    if (check) return await server.close();
    console.log(`Serving ${first} at ${server.url} (Ctrl-C stops)`);
    if (command) runMeanwhile(command);
  } catch (error) {
    const reason = {
      EADDRINUSE: `port ${port} is taken by another program: stop it, or choose another port, as in ./build.sh serve ${port === 65535 ? 8080 : port + 1}`,
      EACCES: `port ${port} may not be used by this user: choose one from 1024 up, as in ./build.sh serve 8080`,
    }[error.code];
    console.error(`serve: ${reason ?? error.message}`);
    process.exitCode = 1;
  }
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));
