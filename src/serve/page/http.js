// The server: requests with the token, errors as problem details, and event streams that come back.

const TOKEN = "embosser-token";
const RETRY_MS_MAX = 10_000;

export class NeedsToken extends Error {}

// An error that the server explained.
export class Told extends Error {
  constructor(problem) {
    super(problem.detail ?? problem.title ?? "The server refused it");
    this.problem = problem;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

export function authorization() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export function isSignedIn() {
  return sessionStorage.getItem(TOKEN) !== null;
}

// What an answer that is not a success means.
export function trouble(status, text) {
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    problem = { detail: `The server answered ${status}` };
  }
  return status === 401 ? new NeedsToken(problem.detail) : new Told(problem);
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...authorization(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached; trying again.");
  }
  if (!response.ok) throw trouble(response.status, await response.text());
  return response;
}

export async function get(path) {
  return (await ask(path)).json();
}

export async function post(path) {
  return (await ask(path, { method: "POST" })).json();
}

export async function postJson(path, body) {
  return (await ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } })).json();
}

export async function download(path) {
  return (await ask(path)).blob();
}

export async function putText(path, text) {
  return (await ask(path, { method: "PUT", body: text, headers: { "Content-Type": "application/toml" } })).json();
}

// Sends a form and tells how much of it was sent, which fetch does not; answers the status and what the server said, or nothing
// if `signal` aborted it.
export function sendForm(path, form, signal, progress) {
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.open("POST", path);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => progress(loaded, total);
    request.onload = () => resolve({ status: request.status, text: request.responseText });
    request.onerror = () => reject(new Error("The upload was cut off; nothing was issued. Try again."));
    request.onabort = () => resolve(null);
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// Follows an event stream until `signal` aborts or the event `ended` comes. EventSource cannot send a token, so the
// stream is read by hand; when it drops `lost` is told, and it is opened again.
export async function follow(path, signal, told, lost) {
  let wait = 500;
  while (!signal.aborted) {
    try {
      const response = await ask(path, { signal, headers: { Accept: "text/event-stream" } });
      for await (const { event, data } of events(response.body)) {
        wait = 500;
        told(JSON.parse(data));
        if (event === "ended") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof NeedsToken || (error instanceof Told && error.problem.status === 404)) throw error;
    }
    if (signal.aborted) return;
    lost("The connection is lost; what is shown may be old. Trying again.");
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, RETRY_MS_MAX);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(
          block.split("\n").filter((line) => !line.startsWith(":")).map((line) => {
            const at = line.indexOf(":");
            return [line.slice(0, at), line.slice(at + 1).trimStart()];
          }),
        );
        if (fields.data) yield fields;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
