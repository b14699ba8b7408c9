// The server: requests with the token, errors as problem details, and event streams that come back.

const TOKEN = "embosser-token";
const PLACE = "embosser-account";
const RETRY_MS_MAX = 10_000;
// The server says something every 15 s: a stream that is silent for longer is one of a connection that is no more, as after a
// night's sleep.
const SILENT_MS_MAX = 40_000;

// Where several accounts are served each has a path of its own, and what is asked on its page is asked of it.
export const ACCOUNT_PATH = /^\/accounts\/[^/]+/.exec(location.pathname)?.[0] ?? "";

export class NeedsToken extends Error {}

// What the server says without what is for those who set it up or send it requests: options and parameters.
export function plainly(text) {
  return text.replace(/ \([a-z_]+\.[a-z_]+\)/g, "").replace(/\. (?:Upload|Send) it with yes_cancel=\d+ if that is meant/g, "")
    .replace(/, or with second_cards=true if that is wanted/g, "");
}

// An error that the server explained.
export class Told extends Error {
  constructor(problem) {
    super(plainly(problem.detail ?? problem.title ?? "The server refused it"));
    this.problem = problem;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

// What is kept in this tab beside the token: it is whose work it was.
export function forgetWork() {
  for (const key of Object.keys(sessionStorage)) if (key !== TOKEN) sessionStorage.removeItem(key);
}

// What was kept for another account is of no use to this one.
export function forgetWorkElsewhere() {
  if ((sessionStorage.getItem(PLACE) ?? ACCOUNT_PATH) !== ACCOUNT_PATH) forgetWork();
  sessionStorage.setItem(PLACE, ACCOUNT_PATH);
}

export function forgetAll() {
  sessionStorage.clear();
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
    problem = { detail: "The server, or what stands before it, gave no proper answer. Try again in a moment", status };
  }
  return status === 401 ? new NeedsToken(problem.detail) : new Told(problem);
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(`${ACCOUNT_PATH}${path}`, { ...options, headers: { ...authorization(), ...options.headers } });
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

// All of it was sent and no answer came: the server may have taken it.
const UNKNOWN = "It is not known whether the file arrived. Look at the list of batches, or send the same file again: rows that have their cards get no second ones.";

// What is said of a file that is not the one that was looked at.
export function wasChanged(file) {
  return `${file.name} was changed or moved since you chose it; nothing was issued. Choose it again.`;
}

// Some browsers do not send a file that was changed since it was chosen, and say no more than that it was not sent.
async function whyCutOff(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return "The upload was cut off; nothing was issued. Try again.";
  } catch {
    return wasChanged(file);
  }
}

// Sends a form and tells how much of it was sent, which fetch does not; answers the status and what the server said, or nothing
// if `signal` aborted it.
export function sendForm(path, form, signal, progress) {
  const request = new XMLHttpRequest();
  let isSent = false;
  return new Promise((resolve, reject) => {
    request.open("POST", `${ACCOUNT_PATH}${path}`);
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => progress(loaded, total);
    request.upload.onload = () => (isSent = true);
    request.onload = () => resolve({ status: request.status, text: request.responseText });
    request.onerror = async () => reject(new Error(isSent && path.startsWith("/v1/batches") ? UNKNOWN : await whyCutOff(form.get("manifest"))));
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

// What comes next, if something comes in time.
function heard(reader) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("Nothing is heard any more.")), SILENT_MS_MAX);
  });
  return Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await heard(reader);
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
