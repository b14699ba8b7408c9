// The page: which of its parts shows, the list of batches, and the token. The rest is in the modules beside it.

import { forgetToken, get, NeedsToken, setToken } from "/page/http.js";
import { byId, cell, count, fill } from "/page/elements.js";
import { closeBatch, listed, openBatch, stateWords } from "/page/batch.js";
import { setServer, startUpload } from "/page/upload.js";

const LIST_EVERY_MS = 3000;

function notice(words, by = "") {
  const element = byId("notice");
  if (element.textContent !== words) element.textContent = words;
  element.hidden = !words;
  element.dataset.by = by;
}

// Runs what needs the server; says what is wrong where it fails, and asks for a token where one is needed. What went
// wrong `by` one thing is not hidden because another went well.
async function attempt(action, by = "user") {
  try {
    await action();
    if (byId("notice").dataset.by === by) notice("");
  } catch (error) {
    if (error instanceof NeedsToken) {
      forgetToken();
      byId("sign-in").hidden = false;
      byId("token").focus();
    }
    notice(error.message, by);
  }
}

function showServer(server) {
  setServer(server);
  const mode = { live: "live cards", test: "test cards", sandbox: "sandbox: no card is real" }[server.mode];
  const pace = server.pace_per_second < server.pace_configured_per_second
    ? `${count(server.pace_per_second)} of ${count(server.pace_configured_per_second)} calls/s`
    : `${count(server.pace_per_second)} calls/s`;
  const trouble = server.stopped ? ` — stopped: ${server.stopped}` : server.stripe_down ? " — Stripe does not answer"
    : server.waits_for ? ` — waiting: ${server.waits_for}` : server.warning ? ` — ${server.warning}` : "";
  const words = `${mode}, ${pace}${trouble}`;
  if (byId("server").textContent !== words) byId("server").textContent = words;
  showAwaited(server.pins_awaited ?? {});
}

// How many cardholders have not chosen their PIN yet, by how long ago they were asked.
function showAwaited({ hour, day, week, older }) {
  const ages = [[hour, "for less than an hour"], [day, "for less than a day"], [week, "for less than a week"], [older, "for longer"]];
  const waiting = ages.filter(([jobs]) => jobs).map(([jobs, since]) => `${count(jobs)} ${since}`);
  const words = waiting.length ? `Waiting for a PIN: ${waiting.join(", ")}` : "";
  if (byId("awaited").textContent !== words) byId("awaited").textContent = words;
  byId("awaited").hidden = !words;
}

function showList({ batches }) {
  byId("list-none").hidden = batches.length > 0;
  byId("list-table").hidden = batches.length === 0;
  // Rows are changed in place, so that a focused link stays focused.
  fill(byId("list-table").tBodies[0], batches, (batch) => batch.batch, (row, batch) => {
    if (row.cells.length === 0) {
      const link = document.createElement("a");
      link.href = address(batch.batch);
      link.textContent = batch.batch;
      row.append(cell(link), cell(""), ...[0, 0, 0, 0].map(() => cell("", "number")));
    }
    const left = batch.rows === null ? "–" : count(batch.waiting + batch.unresolved);
    const rows = batch.rows === null ? "–" : count(batch.rows);
    [stateWords(batch), rows, count(batch.issued), count(batch.refused), left].forEach((words, index) => {
      const shown = row.cells[index + 1];
      if (shown.textContent !== words) shown.textContent = words;
    });
  });
}

function address(batch) {
  return `#/batches/${encodeURIComponent(batch)}`;
}

function route() {
  const found = /^#\/batches\/(.+)$/.exec(location.hash);
  byId("upload").hidden = Boolean(found);
  byId("batch").hidden = !found;
  if (found) {
    openBatch(decodeURIComponent(found[1]), attempt);
  } else {
    closeBatch();
  }
}

async function refresh() {
  if (byId("sign-in").hidden && !document.hidden) {
    await attempt(async () => {
      const [server, list] = await Promise.all([get("/v1/server"), get("/v1/batches")]);
      showServer(server);
      showList(list);
      listed(list.batches);
    }, "refresh");
  }
  setTimeout(refresh, LIST_EVERY_MS);
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  byId("token").value = "";
  byId("sign-in").hidden = true;
  notice("");
  route();
});
window.addEventListener("hashchange", () => {
  route();
  byId(byId("batch").hidden ? "main" : "batch-title").focus();
});
startUpload(attempt, (batch) => {
  location.hash = address(batch);
});
route();
refresh();
