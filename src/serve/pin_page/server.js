// The server's side of a link: what it is asked, and what goes wrong in a few words that the pages understand.

// The pages may be under any path of their host.
const API = new URL("../../v1/", import.meta.url);

// The server may be waiting for Stripe itself; it says so before this.
const ANSWER_MS_MAX = 90_000;
const KEY_MS_MAX = 10_000;

// Codes of the server; of anything else it says, the way out is the same: later.
const CODES = ["link_unusable", "stale_key", "pin_unusable", "card_refused", "not_now", "lost", "too_many_requests"];

// What went wrong: one of the codes above; `lost`, where nobody knows whether the server did it; or a code of the page's own.
export class Trouble extends Error {
  constructor(code, seconds = 0) {
    super(code);
    this.code = code;
    this.seconds = seconds;
  }
}

// A fetch that ends. (AbortSignal.timeout is younger than some phones.)
async function ask(url, options, msMax) {
  const control = new AbortController();
  const timer = setTimeout(() => control.abort(), msMax);
  try {
    const answer = await fetch(url, { cache: "no-store", credentials: "omit", signal: control.signal, ...options });
    return { answer, body: await answer.json().catch(() => null) };
  } finally {
    clearTimeout(timer);
  }
}

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  const asked = ask(new URL(path, API), { method: "POST", headers, body: JSON.stringify(body) }, ANSWER_MS_MAX);
  const { answer, body: told } = await asked.catch(() => {
    throw new Trouble("lost");
  });
  if (answer.ok && told !== null) return told;
  if (answer.ok) throw new Trouble("lost");
  const code = CODES.includes(told?.code) ? told.code : "not_now";
  throw new Trouble(code, Number(answer.headers.get("Retry-After")) || 0);
}

async function keyFrom(url) {
  const { answer, body } = await ask(url, {}, KEY_MS_MAX);
  const { key_id: kid, jwk } = body ?? {};
  if (!answer.ok || typeof kid !== "string" || typeof jwk?.n !== "string" || typeof jwk?.e !== "string") {
    throw new Trouble("no_key");
  }
  return { kid, jwk };
}

// Stripe's key of this moment: from Stripe, or through the server where a firewall or the browser's rules forbid that.
export async function pinKey(url) {
  for (const from of [url, new URL("pin-key", API)]) {
    try {
      return await keyFrom(from);
    } catch {
      // The next one may do.
    }
  }
  throw new Trouble("no_key");
}
