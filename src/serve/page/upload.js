// Choosing a manifest, sending it, and showing what is wrong with it.

import { authorization, trouble } from "/page/http.js";
import { byId, cell, count, duration, save, size, sure } from "/page/elements.js";

let server = { mode: "test", upload_bytes_max: Infinity };
let file = null;
let sending = null;

export function setServer(view) {
  server = view;
  const select = byId("columns");
  byId("columns-choice").hidden = view.columns.length === 0;
  // The list stays as it is while nothing changed: somebody may be choosing from it.
  if ([...select.options].slice(1).map((option) => option.value).join() === view.columns.join()) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...view.columns.map((name) => new Option(name, name)));
  if (view.columns.includes(chosen)) select.value = chosen;
}

export function startUpload(attempt, begun) {
  const drop = byId("drop");
  // The browser drops the file into the input, which covers the area; this only shows that it would.
  for (const type of ["dragenter", "dragover"]) drop.addEventListener(type, () => drop.classList.add("over"));
  for (const type of ["dragleave", "drop"]) drop.addEventListener(type, () => drop.classList.remove("over"));
  byId("file").addEventListener("change", () => choose(byId("file").files[0]));
  byId("upload-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const second = byId("second").checked;
    const what = second ? "cards for every row, second ones too," : "cards";
    const words = server.mode === "live" ? `Issue LIVE ${what} for ${file.name}? They are real and cannot be taken back.`
      : `Issue ${what} for ${file.name}?`;
    if ((server.mode === "live" || second) && !(await sure(words, server.mode === "live" ? "Issue live cards" : "Issue the cards"))) return;
    attempt(() => issue(begun));
  });
  byId("check").addEventListener("click", () => attempt(check));
  byId("abort").addEventListener("click", () => sending?.abort());
  byId("problems-download").addEventListener("click", () => {
    const rows = [...byId("problems-table").rows].map((row) => [...row.cells].map((shown) => shown.textContent));
    save(new Blob([rows.map((row) => row.map(quoted).join(",") + "\r\n").join("")], { type: "text/csv" }),
      `${byId("name").value}.problems.csv`);
  });
}

// A CSV cell that no spreadsheet takes for a formula.
function quoted(text) {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

function choose(chosen) {
  if (!chosen) return;
  file = chosen;
  byId("chosen").hidden = false;
  byId("file-name").textContent = `${file.name}, ${size(file.size)}`;
  byId("name").value = file.name.replace(/\.[^.]*$/, "");
  byId("second").checked = false;
  clear();
  const tooLarge = file.size > server.upload_bytes_max;
  byId("issue").disabled = byId("check").disabled = tooLarge;
  if (tooLarge) verdict(`The file is larger than the ${size(server.upload_bytes_max)} that this server takes; split it.`, "bad");
}

function clear() {
  verdict("", "");
  byId("problems").hidden = true;
  byId("problems-table").tBodies[0].replaceChildren();
}

function verdict(words, kind) {
  byId("verdict").className = kind;
  byId("verdict").textContent = words;
}

async function issue(begun) {
  let batch = await send("/v1/batches");
  // Only the server knows how many cards the file cancels: it says so, and is told again once somebody agreed.
  if (batch?.cancels !== undefined) {
    const words = `${file.name} cancels ${count(batch.cancels)} cards, for ever. That cannot be undone.`;
    if (!(await sure(words, `Cancel ${count(batch.cancels)} cards`))) return;
    batch = await send("/v1/batches", `&yes_cancel=${batch.cancels}`);
  }
  if (batch?.batch) begun(batch.batch);
}

async function check() {
  const report = await send("/v1/checks");
  if (!report) return;
  const { rows, pins, physical, virtual, changes, cancels, cardholders, known_before: known, eta_seconds: eta, notes } = report;
  const people = cardholders ? `${count(cardholders)} new cardholders` : "";
  const cancelled = cancels && changes ? ` (${count(cancels)} cancelled)` : "";
  const replaced = cancels && !changes ? `${count(cancels)} replaced and cancelled first` : "";
  const cards = changes ? `${count(changes)} card changes${cancelled}` : physical + virtual || !people ? `${count(physical)} physical, ${count(virtual)} virtual` : "";
  const contents = [cards, replaced, people].filter((words) => words).join(", ");
  const also = notes.map((note) => ` ${note}`).join("");
  showProblems({ problems: report.warnings, problem_count: report.warning_count });
  const keep = known ? ` ${count(known)} of them have their card from another batch and keep it.` : "";
  verdict(`Nothing is wrong: ${count(rows)} rows (${contents}), ${count(pins)} with a PIN; about ${duration(eta)} to issue.${keep}${also}`, "good");
}

// Sends the file; answers what the server said, or nothing after showing its problems. XMLHttpRequest, because fetch
// does not tell how much was sent.
async function send(path, more = "") {
  clear();
  const request = new XMLHttpRequest();
  sending = request;
  busy(true);
  try {
    const { status, text } = await new Promise((resolve, reject) => {
      const second = byId("second").checked ? "&second_cards=true" : "";
      const columns = byId("columns").value && `&columns=${encodeURIComponent(byId("columns").value)}`;
      request.open("POST", `${path}?name=${encodeURIComponent(byId("name").value)}${second}${columns}${more}`);
      for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
      request.setRequestHeader("Content-Type", "text/csv");
      request.upload.onprogress = ({ loaded, total }) => {
        byId("sent").value = loaded / total;
        byId("sent-words").textContent = loaded < total ? `${size(loaded)} of ${size(total)}` : "Checking the last rows…";
      };
      request.onload = () => resolve({ status: request.status, text: request.responseText });
      request.onerror = () => reject(new Error("The upload was cut off; nothing was issued. Try again."));
      request.onabort = () => resolve({ status: 0, text: "" });
      request.send(file);
    });
    if (status === 0) {
      verdict("Stopped; nothing was issued.", "");
      return null;
    }
    if (status < 300) return JSON.parse(text);
    const error = trouble(status, text);
    if (!error.problem) throw error;
    verdict(error.message, "bad");
    if (error.problem.cancels !== undefined) return error.problem;
    showProblems(error.problem);
    return null;
  } finally {
    sending = null;
    busy(false);
  }
}

function busy(now) {
  byId("sending").hidden = !now;
  byId("sent").value = 0;
  byId("issue").disabled = byId("check").disabled = byId("file").disabled = now;
}

function showProblems({ problems = [], problem_count: total = problems.length }) {
  if (problems.length === 0) return;
  byId("problems").hidden = false;
  byId("problems-table").tBodies[0].replaceChildren(...problems.map(({ severity, line, row_id: name, column, reason, found, suggestion }) => {
    const row = document.createElement("tr");
    const meant = suggestion ? ` (did you mean ${suggestion}?)` : "";
    const words = `${severity === "warning" ? "May be wrong: " : ""}${found ? `“${found}” ` : ""}${reason}${meant}`;
    row.append(cell(String(line ?? ""), "number"), cell(name ?? ""), cell(column), cell(words));
    return row;
  }));
  if (total > problems.length) byId("verdict").textContent += ` The first ${count(problems.length)} of ${count(total)} problems are shown.`;
  byId("verdict").scrollIntoView({ block: "nearest" });
}
