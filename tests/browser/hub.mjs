// A server that behaves like the Hugging Face Hub (resolve addresses, redirects to signed addresses of another server, ranges,
// ETags, x-linked-etag, the list of files) and misbehaves on command.
import { createHash, randomUUID } from "node:crypto";
import { serve } from "../../tools/serve.mjs";

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const sha1 = (bytes) => createHash("sha1").update(bytes).digest("hex");

const EXPOSED = "ETag, Accept-Ranges, Content-Range, X-Repo-Commit, X-Error-Code, X-Linked-Size, X-Linked-ETag, X-Xet-Hash, Retry-After";

/**
 * Two servers: the Hub, and the one it redirects large files to. Also a plain folder: `folder` is its address.
 * @param {Record<string, Uint8Array | string>} files of the one model, owner/name
 * @returns what tests look at and turn:
 *   files, commit      may be changed while it runs
 *   large              a pattern of the files that are behind redirects; safetensors unless given
 *   requests           [{method, where: "hub" | "cdn" | "folder" | "api", file, range}]
 *   fault(request)     called for each, may give: {cut: n} ends the connection at byte n of the file; {stall: n} gives nothing from
 *                      byte n on; {status, headers}; {html: true}; {noRange: true}; {body} other bytes; {closed: true} no CORS header
 */
export async function startHub(t, files) {
  const hub = {
    files: { ...files },
    commit: sha1("first"),
    requests: [],
    fault: () => undefined,
    /** Ends what stalls. */
    stalled: new Set(),
    sha256: (file) => sha256(hub.files[file]),
    reset() {
      hub.requests.length = 0;
      hub.fault = () => undefined;
      for (const response of hub.stalled) response.destroy();
      hub.stalled.clear();
    },
  };
  const large = (file) => (hub.large ?? /\.safetensors$/).test(file);
  const signatures = new Map();
  hub.expire = () => signatures.clear();

  const handle = async (request, response) => {
    const url = new URL(request.url, "http://hub");
    const found = [
      ["api", /^\/api\/models\/owner\/name\/tree\/([^/]+)$/],
      ["hub", /^\/owner\/name\/resolve\/([^/]+)\/(.+)$/],
      ["cdn", /^\/cdn\/()(.+)$/],
      ["folder", /^\/folder\/()(.+)$/],
    ].map(([where, pattern]) => [where, pattern.exec(decodeURIComponent(url.pathname))]).find(([, match]) => match);
    if (!found) return false;
    const [where, [, revision, file = "(list)"]] = found;
    const asked = { method: request.method, where, file, revision, range: request.headers.range };
    hub.requests.push(asked);
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(asked.range ?? "") ?? [];
    const start = Number(first ?? 0);
    const fault = (await hub.fault({ ...asked, start, end: last ? Number(last) + 1 : Infinity })) ?? {};
    const headers = { "Access-Control-Expose-Headers": EXPOSED, "Cache-Control": "no-store" };
    if (!fault.closed) headers["Access-Control-Allow-Origin"] = "*";
    const end = (status, more = {}, body = "") => {
      response.writeHead(status, { ...headers, ...more, "Content-Length": Buffer.byteLength(body) });
      response.end(request.method === "HEAD" ? undefined : body);
    };
    if (fault.status) return end(fault.status, fault.headers), true;
    if (fault.html) return end(200, { "Content-Type": "text/html" }, "<!doctype html><title>Sign in to the network</title>"), true;
    if (where === "api") {
      const list = Object.entries(hub.files).map(([path, bytes]) => {
        const apart = large(path);
        // As the Hub has it: `oid` is git's own sum, `xetHash` one of chunks; only lfs.oid is the SHA-256.
        return { type: "file", path, size: Buffer.byteLength(bytes), oid: sha1(bytes), ...(apart && { lfs: { oid: fault.sha256 ?? sha256(bytes) }, xetHash: sha256(`xet ${path}`) }) };
      });
      return end(200, { "Content-Type": "application/json" }, JSON.stringify(list)), true;
    }
    const bytes = hub.files[file] === undefined ? undefined : Buffer.from(fault.body ?? hub.files[file]);
    if (!bytes) return end(404, where === "hub" ? { "X-Error-Code": "EntryNotFound" } : {}), true;
    if (where === "hub") {
      headers["X-Repo-Commit"] = hub.commit;
      if (large(file)) {
        const signature = randomUUID();
        signatures.set(signature, file);
        return end(302, { "X-Linked-ETag": `"${sha256(bytes)}"`, "X-Linked-Size": bytes.length, "X-Xet-Hash": sha256(`xet ${file}`), Location: `${hub.cdn}cdn/${file}?signature=${signature}` }), true;
      }
    }
    if (where === "cdn" && signatures.get(url.searchParams.get("signature")) !== file) return end(403), true;
    headers.ETag = where === "cdn" ? `"${sha256(`xet ${sha1(bytes)}`)}"` : `"${sha1(bytes)}"`;
    await send(request, response, bytes, start, last, headers, fault);
    return true;
  };

  async function send(request, response, bytes, start, last, headers, { cut, stall, noRange }) {
    const ranged = !noRange && request.headers.range !== undefined;
    if (ranged && start >= bytes.length) {
      response.writeHead(416, { ...headers, "Content-Range": `bytes */${bytes.length}`, "Content-Length": 0 }).end();
      return;
    }
    const from = ranged ? start : 0;
    const end = ranged && last ? Math.min(bytes.length, Number(last) + 1) : bytes.length;
    response.writeHead(ranged ? 206 : 200, {
      ...headers,
      "Content-Type": "application/octet-stream",
      "Content-Length": end - from,
      ...(ranged && { "Content-Range": `bytes ${from}-${end - 1}/${bytes.length}` }),
    });
    if (request.method === "HEAD") return response.end();
    const stop = [cut, stall].find((at) => at !== undefined && at >= from && at < end);
    if (stop === undefined) return response.end(bytes.subarray(from, end));
    await new Promise((sent) => response.write(bytes.subarray(from, stop), sent));
    if (stop === cut) response.socket.end(); // what was written arrives
    else hub.stalled.add(response);
  }

  const servers = await Promise.all([serve(".", { handle }), serve(".", { handle })]);
  t.after(() => Promise.all(servers.map(({ close }) => close())));
  hub.cdn = servers[1].url;
  hub.model = `${servers[0].url}owner/name/resolve/main/`;
  hub.folder = `${servers[0].url}folder/`;
  return hub;
}
