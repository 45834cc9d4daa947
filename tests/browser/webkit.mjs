// WebKit, Safari's engine, as Debian packages it: MiniBrowser driven through WebKitWebDriver (W3C WebDriver over HTTP) on a display of its
// own. No well-kept driver speaks to it (Playwright brings builds of its own), so this is as much of Playwright's interface as the tests use.
//
//   const browser = await launchWebKit();
//   const page = await browser.newPage();
//   await page.goto(url);  await page.evaluate(async (x) => …, x);
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const DRIVER = process.env.WEBKIT_DRIVER ?? "/usr/bin/WebKitWebDriver";
const MINIBROWSER = process.env.MINIBROWSER ?? "/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser";
/** The key under which WebDriver names an element. */
const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";
/** Longest wait for anything in the page, in ms. */
const LONGEST = 120_000;

/** Starts the browser with a fresh profile. @param {{args?: string[]}} [options] */
export async function launchWebKit({ args = [] } = {}) {
  const home = await mkdtemp(join(tmpdir(), "siglip-web-"));
  const screen = await startScreen();
  const port = await freePort();
  const driver = spawn(DRIVER, ["-p", String(port)], {
    detached: true,
    stdio: "ignore",
    env: {
      ...process.env,
      DISPLAY: screen.display,
      HOME: home,
      XDG_DATA_HOME: join(home, "data"),
      XDG_CACHE_HOME: join(home, "cache"),
      XDG_CONFIG_HOME: join(home, "config"),
      XDG_RUNTIME_DIR: home,
      WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1", // there are no namespaces to be had in a container
      NO_AT_BRIDGE: "1",
      LIBGL_ALWAYS_SOFTWARE: "1",
      GSETTINGS_BACKEND: "memory",
    },
  });
  const kill = () => {
    try {
      process.kill(-driver.pid);
    } catch {
      // It has ended.
    }
    screen.end();
  };
  process.once("exit", kill);
  const session = await openSession(`http://127.0.0.1:${port}`, args).catch((error) => {
    kill();
    throw error;
  });
  return {
    version: session.version,
    newPage: () => session.newPage(),
    async close() {
      await session.end();
      kill();
      process.removeListener("exit", kill);
      await rm(home, { recursive: true, force: true, maxRetries: 5 }).catch(() => {});
    },
  };
}

async function openSession(base, args) {
  /** One command of the protocol. */
  const call = async (method, path, body) => {
    const response = await fetch(base + path, { method, body: body && JSON.stringify(body), signal: AbortSignal.timeout(LONGEST) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`WebKit: ${method} ${path.replace(/^\/session\/[^/]+/, "")}: ${value.error}: ${value.message}`);
    return value;
  };
  for (let tries = 0; ; tries++) {
    try {
      await call("GET", "/status");
      break;
    } catch (error) {
      if (tries === 100) throw error;
      await pause(100);
    }
  }
  const { sessionId, capabilities } = await call("POST", "/session", {
    capabilities: { alwaysMatch: { browserName: "MiniBrowser", "webkitgtk:browserOptions": { binary: MINIBROWSER, args: ["--automation", ...args] } } },
  });
  const path = `/session/${sessionId}`;
  await call("POST", `${path}/timeouts`, { script: LONGEST, pageLoad: LONGEST, implicit: 0 });

  // A session has one current window, so commands come one at a time, each after its window was chosen.
  let last = Promise.resolve();
  let current;
  const inWindow = (handle, work) => {
    const turn = last.then(async () => {
      if (current !== handle) await call("POST", `${path}/window`, { handle });
      current = handle;
      return work();
    });
    last = turn.catch(() => {});
    return turn;
  };
  const first = await call("GET", `${path}/window`);
  current = first;

  return {
    version: capabilities.browserVersion,
    async newPage() {
      // The first window stays, as the session ends with its last one.
      const { handle } = await inWindow(first, () => call("POST", `${path}/window/new`, { type: "window" }));
      const command = (method, name, body) => inWindow(handle, () => call(method, `${path}${name}`, body));
      return new Page(command);
    },
    end: () => call("DELETE", path).catch(() => {}),
  };
}

class Page {
  #command;
  #count = 0;

  /** @param {(method: string, name: string, body?: object) => Promise<any>} command */
  constructor(command) {
    this.#command = command;
  }

  async goto(url) {
    await this.#command("POST", "/url", { url });
  }

  async reload() {
    await this.#command("POST", "/refresh", {});
  }

  /**
   * What `run(argument)` gives in the page, as JSON. It is started and then asked for, so that the driver's own limits don't matter.
   * @param {(argument: any) => any} run @param {any} [argument]
   */
  async evaluate(run, argument) {
    const id = ++this.#count;
    await this.#command("POST", "/execute/sync", { script: `(${START})(${run}, ...arguments)`, args: [argument ?? null, id] });
    const end = Date.now() + LONGEST;
    for (let wait = 2; Date.now() < end; wait = Math.min(2 * wait, 200)) {
      const outcome = await this.#command("POST", "/execute/sync", { script: "return window.__outcomes[arguments[0]]", args: [id] });
      if (outcome) {
        const { value, error } = JSON.parse(outcome);
        if (error) throw new Error(`page.evaluate: ${error}`);
        return value;
      }
      await pause(wait);
    }
    throw new Error(`page.evaluate: nothing came of it in ${LONGEST} ms: ${run}`);
  }

  /** @param {(argument: any) => any} run @param {any} [argument] */
  async waitForFunction(run, argument) {
    const end = Date.now() + LONGEST;
    for (;;) {
      const value = await this.evaluate(run, argument);
      if (value) return value;
      if (Date.now() > end) throw new Error(`page.waitForFunction: ${LONGEST} ms passed: ${run}`);
      await pause(50);
    }
  }

  async #find(selector) {
    return (await this.#command("POST", "/element", { using: "css selector", value: selector }))[ELEMENT];
  }

  async click(selector) {
    await this.#command("POST", `/element/${await this.#find(selector)}/click`, {});
  }

  /** @param {string} selector @param {string[]} paths */
  async setInputFiles(selector, paths) {
    await this.#command("POST", `/element/${await this.#find(selector)}/value`, { text: paths.join("\n") });
  }

  /** @param {{path: string}} options */
  async screenshot({ path }) {
    await writeFile(path, Buffer.from(await this.#command("GET", "/screenshot"), "base64"));
  }

  async setViewportSize({ width, height }) {
    await this.#command("POST", "/window/rect", { width, height });
  }

  setDefaultTimeout() {}

  async close() {
    await this.#command("DELETE", "/window").catch(() => {});
  }
}

/** Runs in the page: what comes of `run` is put where the driver can read it, under a number of its own. */
const START = String((run, argument, id) => {
  const outcomes = (window.__outcomes ??= {});
  const tell = (outcome) => {
    outcomes[id] = JSON.stringify(outcome, (_, value) => (ArrayBuffer.isView(value) ? [...value] : value));
  };
  Promise.resolve().then(() => run(argument)).then((value) => tell({ value })).catch((error) => tell({ error: String(error?.stack ? `${error}\n${error.stack}` : error) }));
});

/** A display without a screen. */
async function startScreen() {
  const server = spawn("Xvfb", ["-displayfd", "3", "-screen", "0", "1600x1400x24", "-nolisten", "tcp"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const number = await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("exit", (code) => reject(new Error(`Xvfb ended with ${code}`)));
    server.stdio[3].once("data", (data) => resolve(String(data).trim()));
  });
  return { display: `:${number}`, end: () => server.kill() };
}

/** @returns {Promise<number>} */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
