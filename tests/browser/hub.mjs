// A server that behaves like the Hugging Face Hub (resolve addresses, redirects to signed addresses of another server, ranges,
// ETags, x-linked-etag, the list of files) and misbehaves on command.
import { createHash, randomUUID } from "node:crypto";
import { serve } from "../../tools/serve.mjs";

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const sha1 = (bytes) => createHash("sha1").update(bytes).digest("hex");
/** A % that begins nothing stands for itself. */
const decoded = (path) => {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
};
/** As git names a file. */
const gitHash = (bytes) => sha1(Buffer.concat([Buffer.from(`blob ${Buffer.byteLength(bytes)}\0`), Buffer.from(bytes)]));

const EXPOSED = "ETag, Accept-Ranges, Content-Range, X-Repo-Commit, X-Error-Code, X-Linked-Size, X-Linked-ETag, X-Xet-Hash, Retry-After";

/**
 * Two servers: the Hub, and the one it redirects large files to. Also a plain folder: `folder` is its address.
 * @param {Record<string, Uint8Array | string>} files of the one model, owner/name
 * @returns what tests look at and turn:
 *   files, commit      may be changed while it runs
 *   large              a pattern of the files that are behind redirects; safetensors unless given
 *   requests           [{method, where: "hub" | "cdn" | "folder" | "api", file, range}]
 *   fault(request)     called for each, may give some of these:
 *     {cut: n}           ends the connection at byte n of the file        {stall: n}        gives nothing from byte n on
 *     {reset: true}      breaks the connection without an answer          {silent: true}    never answers
 *     {drip: ms}         one byte at a time                               {endless: true}   never stops sending
 *     {status, headers}  an error                                         {closed: true}    no CORS header
 *     {html: true}       a web page                                       {location}        a redirect to there
 *     {body}             other bytes                                      {flip: n}         bit n of the file is another one
 *     {noRange: true}    the whole file whatever is asked for             {shift: n}        a range that begins n bytes later
 *     {extra: n}         n bytes more than asked for                      {short: n}        n bytes fewer, as if that were all
 *     {chunked: true}    no length                                        {garbled: true}   says it is compressed, and isn't
 *     {etag, modified}   what tells the version; null: nothing            {empty: true}     no bytes at all
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
  const etagOf = (bytes, apart) => (apart ? `"${sha256(`xet ${sha1(bytes)}`)}"` : `"${sha1(bytes)}"`);
  hub.etag = (file, apart) => etagOf(hub.files[file], apart);
  const signatures = new Map();
  hub.expire = () => signatures.clear();

  const handle = async (request, response) => {
    const url = new URL(request.url, "http://hub");
    const found = [
      ["api", /^\/api\/models\/owner\/name\/tree\/([^/]+)$/],
      ["hub", /^\/owner\/name\/resolve\/([^/]+)\/(.+)$/],
      ["cdn", /^\/cdn\/()(.+)$/],
      ["folder", /^\/folder\/()(.+)$/],
    ].map(([where, pattern]) => [where, pattern.exec(decoded(url.pathname))]).find(([, match]) => match);
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
    if (fault.reset) return request.socket.resetAndDestroy(), true;
    if (fault.silent) return hub.stalled.add(response), true;
    if (fault.location) return end(302, { Location: fault.location }), true;
    if (fault.status) return end(fault.status, fault.headers), true;
    if (fault.html) return end(200, { "Content-Type": "text/html" }, "<!doctype html><title>Sign in to the network</title>"), true;
    if (where === "api") {
      const list = Object.entries(hub.files).map(([path, bytes]) => {
        const apart = large(path);
        // As the Hub has it: `oid` is git's own sum, `xetHash` one of chunks; only lfs.oid is the SHA-256.
        return { type: "file", path, size: Buffer.byteLength(bytes), oid: gitHash(bytes), ...(apart && { lfs: { oid: fault.sha256 ?? sha256(bytes) }, xetHash: sha256(`xet ${path}`) }) };
      });
      return end(200, { "Content-Type": "application/json" }, JSON.stringify(list)), true;
    }
    const bytes = hub.files[file] === undefined ? undefined : Buffer.from(fault.empty ? "" : fault.body ?? hub.files[file]);
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
    const of = Buffer.from(fault.body ?? hub.files[file]);
    headers.ETag = fault.etag ?? etagOf(of, where === "cdn");
    if (fault.etag === null) delete headers.ETag;
    if (fault.flip !== undefined && bytes.length > 0) bytes[(fault.flip >> 3) % bytes.length] ^= 1 << (fault.flip & 7);
    await send(request, response, bytes, start, last, headers, fault);
    return true;
  };

  async function send(request, response, bytes, start, last, headers, { cut, stall, noRange, drip, endless, shift = 0, extra = 0, short = 0, chunked, garbled }) {
    const ranged = !noRange && request.headers.range !== undefined;
    if (ranged && start >= bytes.length) {
      response.writeHead(416, { ...headers, "Content-Range": `bytes */${bytes.length}`, "Content-Length": 0 }).end();
      return;
    }
    const from = ranged ? Math.min(start + shift, bytes.length) : 0;
    const asked = ranged && last ? Math.min(bytes.length, Number(last) + 1) : bytes.length;
    const end = Math.max(from, asked - short);
    const more = Buffer.alloc(extra, 7);
    response.writeHead(ranged ? 206 : 200, {
      ...headers,
      "Content-Type": "application/octet-stream",
      ...(!chunked && !endless && { "Content-Length": end - from + extra }),
      ...(garbled && { "Content-Encoding": "gzip" }),
      ...(ranged && { "Content-Range": `bytes ${from}-${end - 1}/${bytes.length}` }),
    });
    if (request.method === "HEAD") return response.end();
    if (drip) return trickle(response, bytes.subarray(from, end), drip);
    if (endless) return flood(response);
    const stop = [cut, stall].find((at) => at !== undefined && at >= from && at < end);
    if (stop === undefined) return response.end(Buffer.concat([bytes.subarray(from, end), more]));
    await new Promise((sent) => response.write(bytes.subarray(from, stop), sent));
    if (stop === cut) response.socket.end(); // what was written arrives
    else hub.stalled.add(response);
  }

  /** A byte every so many milliseconds, for as long as somebody listens. */
  function trickle(response, bytes, time) {
    let at = 0;
    const timer = setInterval(() => (at < bytes.length ? response.write(bytes.subarray(at, ++at)) : response.end()), time);
    response.on("close", () => clearInterval(timer));
    hub.stalled.add(response);
  }

  /** As much as is taken. */
  function flood(response) {
    const block = Buffer.alloc(2 ** 20, " ");
    const more = () => {
      while (!response.destroyed && response.write(block));
    };
    response.on("drain", more);
    hub.stalled.add(response);
    more();
  }

  const servers = await Promise.all([serve(".", { handle }), serve(".", { handle })]);
  t.after(() => Promise.all(servers.map(({ close }) => close())));
  hub.cdn = servers[1].url;
  hub.model = `${servers[0].url}owner/name/resolve/main/`;
  hub.folder = `${servers[0].url}folder/`;
  return hub;
}
