// Who did what: the audit log, the latest first.

import { byId, cell, count, inLocalTime, make, save, say, show, time } from "/page/elements.js";
import { download, get, Told } from "/page/http.js";

const ENTRIES_AT_ONCE = 50;
const SEARCH_AFTER_MS = 250;

const WORDS = {
  batch_begun: "began a batch",
  batch_held: "sent a batch for approval",
  batch_scheduled: "sent a batch to start later",
  batch_approved: "approved a batch",
  batch_rejected: "rejected a batch",
  batch_expired: "let a batch wait too long",
  batch_paused: "paused a batch",
  batch_resumed: "resumed a batch",
  batch_cancelled: "cancelled a batch",
  batch_tracked: "asked where a batch’s cards are",
  cards_cancel_sent: "asked for approval to cancel a batch’s cards",
  cards_cancelled: "cancelled a batch’s cards",
  rows_settled: "looked at Stripe for rows that were cut off",
  manifest_checked: "checked a file",
  columns_kept: "kept columns for later files",
  job_sent: "sent a job",
  pin_links_listed: "listed links for PINs",
  pin_links_made: "made links for PINs",
  pin_link_revoked: "revoked a link for a PIN",
  pin_jobs_cancelled: "cancelled rows that waited for a PIN",
  pin_chosen: "chose a PIN",
  pin_shown: "had a PIN shown",
  tokens_read: "read the tokens anew",
};

let attempt = null;
let next = null;
// The batch that the log was opened for; what is searched for takes its place.
let about = "";

// What was done, in words.
export function inWords(action) {
  return WORDS[action] ?? action;
}

// What is told of it beside that, in words and in the reader's time.
export function detailInWords(detail) {
  return inLocalTime((detail ?? "").replace(/^refused: (\w+)$/, (_, code) => (code === "invalid_manifest" ? "something in it was to be mended" : `it was not taken: ${code.replaceAll("_", " ")}`)));
}

export function openLog(batch = "") {
  about = batch;
  byId("log-batch").value = batch;
  again();
}

function again() {
  attempt(async () => {
    try {
      await fetchEntries(false);
      showLog(true);
    } catch (error) {
      if (!(error instanceof Told && error.problem.status === 403)) throw error;
      // Nothing of it is for them: why stands in its place.
      showLog(false);
      say("log-none", "Your token may not read what was done: that takes one with the role “audit”, “operate” or “approve”.");
      show("log-none", true);
    }
  });
}

// Whether there is something to be searched and downloaded.
function showLog(may) {
  for (const id of ["log-download", "log-hint", "log-tools"]) show(id, may);
  if (!may) for (const id of ["log-table", "log-more"]) show(id, false);
}

function query(more) {
  const all = new URLSearchParams(more);
  const wanted = byId("log-batch").value.trim();
  if (about && wanted === about) all.set("batch", about);
  else if (wanted) all.set("q", wanted);
  return all;
}

async function fetchEntries(more) {
  const { entries, next: after } = await get(`/v1/audit?${query({ limit: ENTRIES_AT_ONCE, ...(more && next ? { after: next } : {}) })}`);
  next = after;
  const lines = entries.map((entry) => make("tr", {},
    cell(time(Date.parse(entry.time), "medium"), "When"),
    make("th", { scope: "row", data: { label: "Who" } }, entry.who),
    cell(inWords(entry.action), "What"),
    cell(entry.batch ?? entry.job ?? "", "Batch or job"),
    cell(entry.rows === null || entry.rows === undefined ? "" : count(entry.rows), "Rows", "number"),
    cell(detailInWords(entry.detail), "More")));
  const body = byId("log-table").tBodies[0];
  if (more) body.append(...lines);
  else body.replaceChildren(...lines);
  show("log-table", body.rows.length > 0);
  const wanted = byId("log-batch").value.trim();
  say("log-none", wanted ? `Nothing that was done has “${wanted}” in it.` : "Nothing was done yet.");
  show("log-none", body.rows.length === 0);
  show("log-more", Boolean(next));
}

export function startLog(attempted) {
  attempt = attempted;
  let timer;
  byId("log-batch").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(again, SEARCH_AFTER_MS);
  });
  byId("log-more").addEventListener("click", () => attempt(() => fetchEntries(true)));
  byId("log-download").addEventListener("click", () => attempt(async () => save(await download(`/v1/audit.csv?${query({})}`), "who-did-what.csv")));
}
